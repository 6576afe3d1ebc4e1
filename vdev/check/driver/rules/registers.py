"""How a driver uses the registers of virtio-mmio ("MMIO Device Register Layout", "MMIO-specific Initialization")."""

from spec.mmio import CONFIG_OFFSET, READABLE, WRITABLE, Interrupt, Register
from vdev.check.driver.config_fields import access_sizes
from vdev.check.driver.observation import (
    Called,
    DeviceWasReset,
    InterruptAcknowledged,
    InterruptStatusRead,
    RegisterAccess,
    Rested,
)
from vdev.check.driver.picture import Picture
from vdev.check.driver.rule import Rule, rule, sees
from vdev.devices.kind import Carrier

__all__: list[str] = []

_MMIO = (Carrier.MMIO,)
_ANY = "accessed a register"
_CAUSES = int(Interrupt.USED_BUFFER | Interrupt.CONFIGURATION_CHANGE)
_SHARED_MEMORY = frozenset(
    {
        Register.SHM_SEL,
        Register.SHM_LEN_LOW,
        Register.SHM_LEN_HIGH,
        Register.SHM_BASE_LOW,
        Register.SHM_BASE_HIGH,
    }
)


def _words(seen: RegisterAccess) -> str:
    name = Register(seen.offset).name if seen.offset in READABLE | WRITABLE else f"{seen.offset:#x}"
    return f"a {'write to' if seen.is_write else 'read of'} {name} with {seen.size} bytes"


@rule("mmio.only-what-is-there", covers=["mmio.driver.registers.1"], awaits=_ANY, carriers=_MMIO)
class OnlyWhatIsThere(Rule):
    """No access goes where no register and no field of the configuration space is."""

    @sees(RegisterAccess)
    def access(self, seen: RegisterAccess) -> None:
        """Look the offset up."""
        if seen.offset < CONFIG_OFFSET:
            is_there = seen.offset in READABLE | WRITABLE
        else:
            is_there = bool(access_sizes(self.picture.device_type, seen.offset - CONFIG_OFFSET, seen.size))
        self.expect(
            is_there,
            "mmio.driver.registers.1",
            expected="an access to a register or a field",
            observed=_words(seen),
        )


@rule("mmio.read-only-registers", covers=["mmio.driver.registers.2"], awaits="wrote a register", carriers=_MMIO)
class ReadOnlyRegisters(Rule):
    """No register is written that can only be read."""

    @sees(RegisterAccess)
    def access(self, seen: RegisterAccess) -> None:
        """Look at writes."""
        if seen.is_write and seen.offset < CONFIG_OFFSET:
            self.expect(
                seen.offset not in READABLE - WRITABLE,
                "mmio.driver.registers.2",
                expected="no write to a register that is read",
                observed=_words(seen),
            )


@rule("mmio.write-only-registers", covers=["mmio.driver.registers.3"], awaits="read a register", carriers=_MMIO)
class WriteOnlyRegisters(Rule):
    """No register is read that can only be written."""

    @sees(RegisterAccess)
    def access(self, seen: RegisterAccess) -> None:
        """Look at reads."""
        if not seen.is_write and seen.offset < CONFIG_OFFSET:
            self.expect(
                seen.offset not in WRITABLE - READABLE,
                "mmio.driver.registers.3",
                expected="no read of a register that is written",
                observed=_words(seen),
            )


@rule("mmio.register-width", covers=["mmio.driver.registers.4"], awaits=_ANY, carriers=_MMIO)
class RegisterWidth(Rule):
    """Registers are accessed with 32 bits, aligned."""

    @sees(RegisterAccess)
    def access(self, seen: RegisterAccess) -> None:
        """Look at the width."""
        if seen.offset < CONFIG_OFFSET:
            self.expect(
                seen.size == 4 and seen.offset % 4 == 0,
                "mmio.driver.registers.4",
                expected="4 bytes at a multiple of 4",
                observed=_words(seen),
            )


@rule("mmio.field-width", covers=["mmio.driver.registers.5"], awaits="accessed configuration space", carriers=_MMIO)
class FieldWidth(Rule):
    """Each field of the configuration space is accessed with its own width, one of 64 bits in halves."""

    @sees(RegisterAccess)
    def access(self, seen: RegisterAccess) -> None:
        """Look the field up."""
        if seen.offset >= CONFIG_OFFSET:
            offset = seen.offset - CONFIG_OFFSET
            sizes = access_sizes(self.picture.device_type, offset, 1)
            self.expect(
                not sizes or seen.size in sizes,
                "mmio.driver.registers.5",
                expected=f"{' or '.join(map(str, sorted(sizes)))} bytes at {offset:#x} of configuration space",
                observed=_words(seen),
            )


class _AfterSelector(Rule):
    statement = ""
    selector = Register.DEVICE_FEATURES_SEL
    register = Register.DEVICE_FEATURES
    is_write = False

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._was_selected = False

    @sees(RegisterAccess)
    def access(self, seen: RegisterAccess) -> None:
        """Look which came first."""
        if seen.offset == self.selector and seen.is_write:
            self._was_selected = True
        elif seen.offset == self.register and seen.is_write == self.is_write:
            self.expect(
                self._was_selected,
                self.statement,
                expected=f"{self.selector.name} written before",
                observed=_words(seen),
            )

    @sees(DeviceWasReset)
    def was_reset(self, _: DeviceWasReset) -> None:
        """Whoever begins anew selects anew."""
        self._was_selected = False


@rule("mmio.offer-selected", covers=["mmio.driver.registers.12"], awaits="read DeviceFeatures", carriers=_MMIO)
class OfferSelected(_AfterSelector):
    """DeviceFeaturesSel is written before DeviceFeatures is read."""

    statement = "mmio.driver.registers.12"


@rule("mmio.acceptance-selected", covers=["mmio.driver.registers.13"], awaits="wrote DriverFeatures", carriers=_MMIO)
class AcceptanceSelected(_AfterSelector):
    """DriverFeaturesSel is written before DriverFeatures is."""

    statement = "mmio.driver.registers.13"
    selector, register, is_write = Register.DRIVER_FEATURES_SEL, Register.DRIVER_FEATURES, True


@rule("mmio.begins-with-magic", covers=["mmio.driver.init.1"], awaits=_ANY, carriers=_MMIO)
class BeginsWithMagic(Rule):
    """A driver begins by reading MagicValue and Version."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._read: set[int] = set()

    @sees(RegisterAccess)
    def access(self, seen: RegisterAccess) -> None:
        """Look what is accessed before both were read."""
        first = {Register.MAGIC_VALUE, Register.VERSION}
        if first <= self._read:
            return
        if not seen.is_write:
            self._read.add(seen.offset)
        self.expect(
            seen.offset in first,
            "mmio.driver.init.1",
            expected="MagicValue and Version read first",
            observed=_words(seen),
        )


@rule("mmio.device-id-is-read", covers=["mmio.driver.init.2"], awaits="went on after MagicValue", carriers=_MMIO)
class DeviceIdIsRead(Rule):
    """DeviceID is read when magic value and version are those of virtio-mmio, before anything else is done."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._was_read = False

    @sees(RegisterAccess)
    def access(self, seen: RegisterAccess) -> None:
        """Look what is accessed before it."""
        if seen.offset == Register.DEVICE_ID and not seen.is_write:
            self._was_read = True
        elif seen.offset not in (Register.MAGIC_VALUE, Register.VERSION, Register.VENDOR_ID):
            self.expect(
                self._was_read,
                "mmio.driver.init.2",
                expected="DeviceID read before",
                observed=_words(seen),
            )


@rule("mmio.no-shared-memory", covers=["mmio.driver.init.5"], awaits=_ANY, carriers=_MMIO)
class NoSharedMemory(Rule):
    """The registers for shared memory are left alone: no device here has any."""

    @sees(RegisterAccess)
    def access(self, seen: RegisterAccess) -> None:
        """Look at the offset."""
        self.expect(
            seen.offset not in _SHARED_MEMORY,
            "mmio.driver.init.5",
            expected="no access to a register for shared memory",
            observed=_words(seen),
        )


@rule(
    "mmio.acknowledges-what-is-there",
    covers=["mmio.driver.registers.20"],
    awaits="acknowledged an interrupt",
    carriers=_MMIO,
)
class AcknowledgesWhatIsThere(Rule):
    """InterruptACK gets no bit that is not defined."""

    @sees(InterruptAcknowledged)
    def acknowledged(self, seen: InterruptAcknowledged) -> None:
        """Look at the bits."""
        self.expect(
            not seen.value & ~_CAUSES,
            "mmio.driver.registers.20",
            expected="bits 0 and 1 only",
            observed=f"{seen.value:#x}",
        )


@rule(
    "mmio.interrupt-is-looked-up",
    covers=["mmio.driver.notifications.1"],
    awaits="acknowledged an interrupt",
    carriers=_MMIO,
)
class InterruptIsLookedUp(Rule):
    """InterruptStatus is read before an interrupt is acknowledged; causes read together may go one by one."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._was_read = False
        self._left = 0

    @sees(InterruptStatusRead)
    def read(self, seen: InterruptStatusRead) -> None:
        """The driver looks."""
        self._was_read = True
        self._left |= seen.value

    @sees(InterruptAcknowledged)
    def acknowledged(self, seen: InterruptAcknowledged) -> None:
        """Look whether it did."""
        self.expect(
            self._was_read,
            "mmio.driver.notifications.1",
            expected="InterruptStatus read before",
            observed=f"{seen.value:#x} acknowledged unseen",
        )
        self._left &= ~seen.value
        self._was_read = bool(self._left)


@rule(
    "mmio.interrupt-is-acknowledged",
    covers=["mmio.driver.registers.19", "mmio.driver.notifications.3"],
    awaits="handled an interrupt",
    carriers=_MMIO,
)
class InterruptIsAcknowledged(Rule):
    """When a driver has read why it was interrupted and rests, it has acknowledged just that."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._read = 0
        self._called = False

    @sees(Called)
    def called(self, _: Called) -> None:
        """There is something to handle."""
        self._called = True

    @sees(InterruptStatusRead)
    def read(self, seen: InterruptStatusRead) -> None:
        """Take note of the causes."""
        self._read |= seen.value & _CAUSES

    @sees(DeviceWasReset)
    def was_reset(self, _: DeviceWasReset) -> None:
        """Nothing is left to acknowledge."""
        self._read = 0
        self._called = False

    @sees(InterruptAcknowledged)
    def acknowledged(self, seen: InterruptAcknowledged) -> None:
        """Look whether more was acknowledged than was known."""
        self.expect(
            not seen.value & _CAUSES & ~self._read,
            "mmio.driver.registers.19",
            expected=f"no more than the {self._read:#x} that was read",
            observed=f"{seen.value:#x}",
        )
        self._read &= ~seen.value

    @sees(Rested)
    def rested(self, seen: Rested) -> None:
        """Look whether something is left."""
        if not seen.is_certain or not self._called:
            return
        self._called = False
        self.expect(
            not self._read,
            "mmio.driver.notifications.3",
            expected="every cause that was read acknowledged",
            observed=f"{self._read:#x} left in InterruptStatus when there was nothing else to do",
        )
