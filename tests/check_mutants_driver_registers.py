"""Faults in how a driver uses registers and configuration space."""

from check_driver_mutants import DriverMutant
from check_driver_setup import Disk, Entropy, Rings
from check_mutants_driver_start import with_transport

from guest_agent.mmio import MmioDriver
from spec.device import DeviceStatus
from spec.layout import dtype_of
from spec.mmio import CONFIG_OFFSET, Interrupt, Register
from vdev.errors import DeviceViolation


def then(act, name="drive"):
    """A transport's method that does something more first."""
    real = getattr(MmioDriver, name)

    def method(self, *arguments, **options):
        act(self)
        return real(self, *arguments, **options)

    return {name: method}


def access(offset, size=4, value=None):
    def act(self):
        if value is None:
            self._exits.read(self.base + offset, size)
        else:
            self._exits.write(self.base + offset, size, value)

    return act


def offer_unselected(self):
    offered = self.read(Register.DEVICE_FEATURES)
    for word in range(1, 4):
        self.write(Register.DEVICE_FEATURES_SEL, word)
        offered |= self.read(Register.DEVICE_FEATURES) << 32 * word
    return offered


def accept_unselected(self, features):
    self.write(Register.DRIVER_FEATURES, features & 0xFFFF_FFFF)
    for word in range(1, 4):
        self.write(Register.DRIVER_FEATURES_SEL, word)
        self.write(Register.DRIVER_FEATURES, features >> 32 * word & 0xFFFF_FFFF)
    self.set_status(DeviceStatus.FEATURES_OK)
    assert self.status & DeviceStatus.FEATURES_OK


def probing(*registers, trusting=False):
    """Probe a device by reading these registers, in this order."""

    @classmethod
    def probe(cls, exits, base):
        driver = cls(exits, base)
        values = [driver.read(register) for register in registers]
        if not trusting and not values[-1]:
            return None
        return driver

    return probe


@classmethod
def complaining(cls, exits, base):
    found = REAL_PROBE(cls, exits, base)
    if found is None:
        raise DeviceViolation("nothing", "there is no device")
    return found


REAL_PROBE = MmioDriver.probe.__func__


def acknowledge_all(self):
    causes = Interrupt(self.read(Register.INTERRUPT_STATUS) & 3)
    self.write(Register.INTERRUPT_ACK, 0xF)
    return causes


def acknowledge_unseen(self):
    self.write(Register.INTERRUPT_ACK, 0)
    return Interrupt.USED_BUFFER


def acknowledge_nothing(self):
    return Interrupt(self.read(Register.INTERRUPT_STATUS) & 3)


def strict_about_causes(self):
    causes = self.read(Register.INTERRUPT_STATUS)
    if causes & ~3:
        raise DeviceViolation("InterruptStatus", f"causes {causes:#x}")
    self.write(Register.INTERRUPT_ACK, causes)
    return Interrupt(causes)


def byte_by_byte(self, offset, size):
    return sum(self._exits.read(self.base + CONFIG_OFFSET + offset + at, 1) << 8 * at for at in range(size))


def read_config(*, looks, repeats, all_fields=False):
    """Read configuration space with or without a look at its generation, and what it says."""

    def read(self, layout, fields=None):
        places = dtype_of(layout).fields
        for _ in range(10):
            before = self.read(Register.CONFIG_GENERATION) if looks else 0
            values = {
                name: self._read_field(int(offset), dtype.itemsize)
                for name, (dtype, offset, *_) in places.items()
                if all_fields or fields is None or name in fields
            }
            if not looks or self.read(Register.CONFIG_GENERATION) == before or not repeats:
                break
        return values

    return read


class Stops(Rings):
    """Does nothing more after a fault that ``is_fatal`` sees."""

    def handle_interrupt(self):
        try:
            super().handle_interrupt()
        except DeviceViolation as violation:
            self.gave_up_why = str(violation)


class TakesSpuriousForFault(Rings):
    """Gives the device up when a call came for nothing."""

    def handle_interrupt(self):
        super().handle_interrupt()
        if not any(queue.has_used() for queue in self.queues):
            self.gave_up_why = "an interrupt for nothing"


class InOrderOnly(Rings):
    """Believes that buffers come back in the order in which they went out."""

    def __init__(self, transport, memory):
        self.tokens = {0: [], 1: []}
        super().__init__(transport, memory)
        for number, queue in enumerate(self.queues):
            self._watch(number, queue)

    def _watch(self, number, queue):
        add, collect, out = queue.add, queue.collect, self.tokens[number]

        def noting_add(readable, writable, token):
            out.append(token)
            return add(readable, writable, token)

        def checking_collect():
            used = collect()
            if used is not None and out.pop(0) != used.token:
                self.gave_up_why = "a buffer came back before its turn"
            return used

        queue.add, queue.collect = noting_add, checking_collect

    def reset_queue(self, number):
        self.until_reset = 1000


class OneAtATime(Rings):
    """Does not expect more than two used buffers at once."""

    def _work(self, number):
        if self.out[number] and self.queues[number].free_count == 0:
            return False
        count = 0
        queue = self.queues[number]
        while queue.collect() is not None:
            count += 1
        self.out[number] -= count
        if count > 3:
            self.gave_up_why = "too many at once"
            return False
        return super()._work(number)


class Impatient(Rings):
    """Gives the device up when a buffer is not back at once."""

    rests = 0
    most = 2

    def step(self):
        busy = super().step()
        self.rests = 0 if busy else self.rests + 1
        if self.rests > self.most:
            self.gave_up_why = "the device is too slow"
        return busy


class GreedyEntropy(Entropy):
    """Takes no device that does not offer every ring feature."""

    def __init__(self, transport, memory):
        super().__init__(transport, memory)
        self.few = bin(self.driver.features).count("1") < 6

    @property
    def gave_up(self):
        return "too few features" if self.few else super().gave_up


class NoStrangers(Entropy):
    """Takes no device that offers what it does not know."""

    def __init__(self, transport, memory):
        self.strange = transport.offered_features() >> 100
        super().__init__(transport, memory)

    @property
    def gave_up(self):
        return "strange features" if self.strange else super().gave_up


MUTANTS = [
    DriverMutant("reads-beside", {"mmio.only-what-is-there"}, with_transport(**then(access(0x0D0)))),
    DriverMutant("writes-magic", {"mmio.read-only-registers"}, with_transport(**then(access(0, 4, 1)))),
    DriverMutant("reads-notify", {"mmio.write-only-registers"}, with_transport(**then(access(0x50)))),
    DriverMutant("two-bytes", {"mmio.register-width"}, with_transport(**then(access(0x70, 2)))),
    DriverMutant("bytes-of-a-field", {"mmio.field-width"}, with_transport(Disk, _read_field=byte_by_byte)),
    DriverMutant("offer-unselected", {"mmio.offer-selected"}, with_transport(offered_features=offer_unselected)),
    DriverMutant(
        "acceptance-unselected", {"mmio.acceptance-selected"}, with_transport(accept_features=accept_unselected)
    ),
    DriverMutant(
        "device-id-first",
        {"mmio.begins-with-magic"},
        with_transport(probe=probing(Register.DEVICE_ID, Register.MAGIC_VALUE, Register.VERSION)),
    ),
    DriverMutant(
        "device-id-unread",
        {"mmio.device-id-is-read"},
        with_transport(probe=probing(Register.MAGIC_VALUE, Register.VERSION)),
    ),
    DriverMutant("asks-for-shared-memory", {"mmio.no-shared-memory"}, with_transport(**then(access(0x0B0)))),
    DriverMutant(
        "acknowledges-anything",
        {"mmio.acknowledges-what-is-there"},
        with_transport(take_interrupt=acknowledge_all),
        also={"mmio.interrupt-is-acknowledged"},
    ),
    DriverMutant(
        "interrupt-not-looked-up", {"mmio.interrupt-is-looked-up"}, with_transport(take_interrupt=acknowledge_unseen)
    ),
    DriverMutant(
        "interrupt-not-acknowledged",
        {"mmio.interrupt-is-acknowledged"},
        with_transport(take_interrupt=acknowledge_nothing),
        games=("all-at-once",),
    ),
    DriverMutant(
        "strict-about-causes",
        {"game.undefined-interrupt-bits"},
        with_transport(Stops, take_interrupt=strict_about_causes),
        games=("undefined-interrupt-bits",),
    ),
    DriverMutant(
        "magic-ignored",
        {"game.wrong-magic"},
        with_transport(probe=probing(Register.MAGIC_VALUE, Register.VERSION, Register.DEVICE_ID)),
        games=("wrong-magic",),
    ),
    DriverMutant(
        "version-ignored",
        {"game.wrong-version"},
        with_transport(probe=probing(Register.MAGIC_VALUE, Register.VERSION, Register.DEVICE_ID)),
        games=("wrong-version",),
    ),
    DriverMutant(
        "no-device-driven",
        {"game.no-device"},
        with_transport(probe=probing(Register.MAGIC_VALUE, Register.VERSION, Register.DEVICE_ID, trusting=True)),
        games=("no-device",),
    ),
    DriverMutant("no-device-a-fault", {"game.no-device"}, with_transport(probe=complaining), games=("no-device",)),
    DriverMutant(
        "generation-unread",
        {"config.wide-fields-by-generation"},
        with_transport(Disk, read_config=read_config(looks=False, repeats=False)),
    ),
    DriverMutant(
        "torn-config-taken",
        {"config.torn-reads-are-repeated"},
        with_transport(Disk, read_config=read_config(looks=True, repeats=False)),
        games=("torn-config",),
        also={"game.torn-config"},
    ),
    DriverMutant(
        "all-fields-read",
        {"config.optional-fields"},
        with_transport(Disk, read_config=read_config(looks=True, repeats=True, all_fields=True)),
    ),
    DriverMutant("spurious-a-fault", {"game.spurious-calls"}, TakesSpuriousForFault, games=("spurious-calls",)),
    DriverMutant("in-order-only", {"game.out-of-order"}, InOrderOnly, games=("out-of-order",), offered=~(1 << 35)),
    DriverMutant("few-at-once", {"game.all-at-once"}, OneAtATime, games=("all-at-once",)),
    DriverMutant("impatient", {"game.all-at-once"}, Impatient, games=("all-at-once",)),
    DriverMutant("greedy", {"game.bare"}, GreedyEntropy, games=("bare",)),
    DriverMutant("shy", {"game.unknown-features"}, NoStrangers, games=("unknown-features",)),
]
