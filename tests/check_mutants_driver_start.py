"""Faults in how a driver brings its device up: status, features, the sequence, queues."""

from check_driver_mutants import SPLIT, DriverMutant
from check_driver_setup import Disk, Rings

from guest_agent.drivers.rings import RING_DRIVER_FEATURES
from guest_agent.mmio import MmioDriver
from guest_agent.transport import DeviceRefused
from spec.block import CONFIG
from spec.device import DeviceStatus, Feature, feature_mask
from spec.mmio import Register


def with_transport(base=Rings, **methods):
    """A driver whose transport has these methods."""
    transport = type("Broken", (MmioDriver,), methods)
    return type("Own", (base,), {"transport_class": transport})


def that_wants(*left_out):
    return type("Own", (Rings,), {"wanted": RING_DRIVER_FEATURES & ~feature_mask(*left_out)})


def driver_first(self):
    self.reset()
    self.set_status(DeviceStatus.DRIVER)
    self.set_status(DeviceStatus.ACKNOWLEDGE)
    self.set_status(DeviceStatus.DRIVER)


def forget_acknowledge(self):
    self.write(Register.STATUS, int(self.status & ~DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER_OK))


def try_again(self, wanted, *, required=()):
    try:
        return MmioDriver.negotiate(self, wanted, required=required)
    except DeviceRefused:
        features = self.offered_features() & wanted
        self.accept_features(features)
        return features


def blindly(self):
    for status in (0, DeviceStatus.ACKNOWLEDGE, DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER):
        self.write(Register.STATUS, int(status))


def suspend_too(self):
    self.write(Register.STATUS, int(self.status | DeviceStatus.SUSPEND))
    self.set_status(DeviceStatus.DRIVER_OK)


def accepting(*bits, instead=False):
    """Accept other features than those that are wanted and offered."""

    def negotiate(self, wanted, *, required=()):
        offered = self.offered_features()
        features = feature_mask(*bits) | (0 if instead else offered & wanted)
        self.accept_features(features)
        return features

    return negotiate


def accept_unseen(self, wanted, *, required=()):
    features = wanted & ~feature_mask(Feature.ORDER_PLATFORM)
    self.accept_features(features)
    return features


def accept_once_more(self):
    self.write(Register.DRIVER_FEATURES_SEL, 0)
    self.write(Register.DRIVER_FEATURES, 0)
    self.set_status(DeviceStatus.DRIVER_OK)


def no_reset(self):
    self.set_status(DeviceStatus.ACKNOWLEDGE)
    self.set_status(DeviceStatus.DRIVER)


def write_features(self, features):
    for word in range(4):
        self.write(Register.DRIVER_FEATURES_SEL, word)
        self.write(Register.DRIVER_FEATURES, features >> 32 * word & 0xFFFF_FFFF)


def accept_without_looking(self, features):
    write_features(self, features)
    # The status is known without looking.
    self.write(Register.STATUS, 1 | 2 | 8)


def drive_without_looking(self):
    self.write(Register.STATUS, 1 | 2 | 8 | 4)


def write_config_early(self):
    MmioDriver.acknowledge_device(self)
    self.write_config(CONFIG, "writeback", 1)


def ready_although_refused(self, features):
    try:
        MmioDriver.accept_features(self, features)
    except DeviceRefused:
        self.write(Register.QUEUE_SEL, 0)
        self.write(Register.QUEUE_READY, 1)
        raise


def kick_early(self, number, addresses):
    MmioDriver.set_up_queue(self, number, addresses)
    self.notify(number)


def leave_unsaid(self, why):
    return DeviceRefused(why)


def misaligned(area, by):
    def set_up_queue(self, number, addresses):
        MmioDriver.set_up_queue(self, number, addresses._replace(**{area: getattr(addresses, area) + by}))

    return set_up_queue


def too_large(self, number, addresses):
    self.queue_size_max(number)
    self.write(Register.QUEUE_SIZE, 64)
    MmioDriver.set_up_queue(self, number, addresses)


def size_when_ready(self, number, addresses):
    MmioDriver.set_up_queue(self, number, addresses)
    self.write(Register.QUEUE_SIZE, addresses.size)


def reset_queue_unseen(self, number):
    self.write(Register.QUEUE_SEL, number)
    self.write(Register.QUEUE_RESET, 1)


class NoZeroFlags(Rings):
    """Its used rings are not zero when the device gets them."""

    def set_up(self, number):
        real = self.transport.set_up_queue

        def set_up_queue(which, addresses):
            self.memory.write(addresses.device, b"\1\0")
            real(which, addresses)

        self.transport.set_up_queue = set_up_queue
        try:
            return super().set_up(number)
        finally:
            self.transport.set_up_queue = real


class StopsUnseen(Rings):
    """Stops a queue before it resets the device, and does not look whether it did."""

    def stop(self):
        self.transport.write(Register.QUEUE_SEL, 0)
        self.transport.write(Register.QUEUE_READY, 0)
        self.transport.write(Register.STATUS, 0)
        self.transport.reset()


class StopsWithTwo(Rings):
    """Stops a queue with another number than 0."""

    def stop(self):
        self.transport.write(Register.QUEUE_SEL, 0)
        self.transport.write(Register.QUEUE_READY, 2)


class HalfSetUp(Rings):
    """Sets a queue up again after its reset without its addresses."""

    def reset_queue(self, number):
        self.transport.reset_queue(number)
        self.transport.write(Register.QUEUE_SIZE, self.size)
        self.transport.write(Register.QUEUE_READY, 1)
        self.out[number] = 0


MUTANTS = [
    DriverMutant("driver-before-acknowledge", {"status.steps"}, with_transport(acknowledge_device=driver_first)),
    DriverMutant("clears-acknowledge", {"status.no-bit-cleared"}, with_transport(drive=forget_acknowledge)),
    DriverMutant(
        "goes-on-after-failed",
        {"status.reset-after-failed"},
        with_transport(negotiate=try_again),
        games=("no-version-1",),
    ),
    DriverMutant("reset-not-read-back", {"status.reset-is-read-back"}, with_transport(acknowledge_device=blindly)),
    DriverMutant("sets-suspend", {"status.no-suspend"}, with_transport(drive=suspend_too)),
    DriverMutant(
        "accepts-what-was-not-offered",
        {"features.only-offered"},
        with_transport(negotiate=accepting(Feature.IN_ORDER)),
        games=("bare",),
        also={"game.bare"},
    ),
    DriverMutant(
        "accepts-without-version-1",
        {"features.version-1"},
        with_transport(negotiate=accepting(Feature.EVENT_IDX, instead=True)),
        formats=SPLIT,
    ),
    DriverMutant(
        "accepts-without-what-is-required",
        {"features.with-what-they-require"},
        with_transport(negotiate=accepting(Feature.IN_ORDER, instead=True)),
        formats=SPLIT,
        also={"features.version-1"},
    ),
    DriverMutant(
        "accepts-unseen",
        {"features.looked-at"},
        with_transport(negotiate=accept_unseen),
        formats=("packed",),
    ),
    DriverMutant(
        "accepts-the-unknown",
        {"features.none-unknown"},
        with_transport(negotiate=accepting(44)),
        games=("unknown-features",),
    ),
    DriverMutant(
        "accepts-sr-iov",
        {"features.no-sr-iov"},
        with_transport(negotiate=accepting(Feature.SR_IOV)),
        games=("unknown-features",),
    ),
    DriverMutant("accepts-again", {"features.no-new-ones"}, with_transport(drive=accept_once_more)),
    DriverMutant("leaves-packed", {"features.packed"}, that_wants(Feature.RING_PACKED), formats=("packed",)),
    DriverMutant(
        "leaves-order-platform",
        {"features.order-platform"},
        that_wants(Feature.ORDER_PLATFORM),
        games=("order-platform",),
    ),
    DriverMutant("begins-without-reset", {"init.begins-with-a-reset"}, with_transport(acknowledge_device=no_reset)),
    DriverMutant(
        "features-ok-not-read-back",
        {"init.begins-with-a-reset"},
        with_transport(accept_features=accept_without_looking, drive=drive_without_looking),
    ),
    DriverMutant(
        "writes-config-early",
        {"init.no-early-config-write"},
        with_transport(Disk, acknowledge_device=write_config_early),
        also={"block.writeback-after-features"},
    ),
    DriverMutant(
        "goes-on-although-refused",
        {"init.stops-where-refused"},
        with_transport(accept_features=ready_although_refused),
        games=("refused",),
    ),
    DriverMutant(
        "gives-up-silently",
        {"game.no-version-1"},
        with_transport(fail=leave_unsaid),
        games=("no-version-1",),
    ),
    DriverMutant("is-refused-silently", {"game.refused"}, with_transport(fail=leave_unsaid), games=("refused",)),
    DriverMutant("kicks-early", {"init.no-early-kick"}, with_transport(set_up_queue=kick_early), also={"*.kick*"}),
    DriverMutant(
        "misaligned-table",
        {"split.areas-aligned"},
        with_transport(set_up_queue=misaligned("descriptor", 8)),
        formats=SPLIT,
    ),
    DriverMutant(
        "misaligned-ring",
        {"packed.areas-aligned"},
        with_transport(set_up_queue=misaligned("driver", 2)),
        formats=("packed",),
    ),
    DriverMutant("used-ring-not-zero", {"split.used-flags-zero"}, NoZeroFlags, formats=SPLIT),
    DriverMutant("queue-too-large", {"mmio.queue-size"}, with_transport(set_up_queue=too_large)),
    DriverMutant("size-while-ready", {"mmio.no-change-while-ready"}, with_transport(set_up_queue=size_when_ready)),
    DriverMutant("stop-not-read-back", {"mmio.stop-is-read-back"}, StopsUnseen),
    DriverMutant("stopped-with-two", {"mmio.stop-is-read-back"}, StopsWithTwo),
    DriverMutant(
        "queue-reset-not-read-back",
        {"mmio.queue-reset-is-read-back"},
        with_transport(reset_queue=reset_queue_unseen),
    ),
    DriverMutant("queue-half-set-up", {"mmio.queue-set-up-anew"}, HalfSetUp, also={"packed.kick-says-where"}),
]
