"""A device that takes its time, changes, breaks down, or is none."""

from spec.device import DeviceStatus
from spec.mmio import Register
from vdev.check.driver.game import Game, Stage, game
from vdev.check.driver.observation import Observation, RegisterAccess
from vdev.check.verdict import Judgement, TargetHung
from vdev.devices.kind import Carrier
from vdev.errors import DriverViolation

__all__: list[str] = []

_MMIO = (Carrier.MMIO,)
_IDENTITY = (Register.MAGIC_VALUE, Register.VERSION, Register.DEVICE_ID, Register.VENDOR_ID)


@game("slow-reset", needs_start=True, carriers=_MMIO, per_format=False)
class SlowReset(Game):
    """The device's status reads as something else than 0 for a while after a reset, and QueueReset as 1 after that of a
    queue.
    """

    enough = 24

    def begin(self) -> None:
        """It is so from the beginning."""
        self.acted += 1

    @classmethod
    def answers(cls, offset: int, value: int, read_count: int) -> int:
        """Not yet 0 in the first reads of each."""
        if offset == Register.STATUS and not value and read_count <= 3:
            return int(DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER)
        if offset == Register.QUEUE_RESET and read_count <= 3:
            return 1
        return value


@game(
    "undefined-interrupt-bits", covers=["mmio.driver.registers.18"], needs_start=True, carriers=_MMIO, per_format=False
)
class UndefinedInterruptBits(Game):
    """InterruptStatus has bits set that nobody knows, beside those that are meant."""

    enough = 17

    def begin(self) -> None:
        """It has from the beginning."""
        self.acted += 1

    @classmethod
    def answers(cls, offset: int, value: int, read_count: int) -> int:
        """All of them."""
        return value | 0xFFFF_FFFC if offset == Register.INTERRUPT_STATUS else value


@game("config-storm", types=["balloon", "block"])
class ConfigStorm(Game):
    """The device says again and again that its configuration space changed."""

    aim = "times configuration space was read"
    enough = 8

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._reads_before = stage.picture.config_read_count

    @property
    def progress(self) -> int:
        """How often the driver looked, or what else it did meanwhile."""
        return self.stage.picture.config_read_count - self._reads_before + super().progress

    def turn(self) -> None:
        """Change nothing, and say so."""
        if self.stage.device.running:
            self.acted += 1
            self.stage.device.change_config()


@game("torn-config", types=["balloon", "block"], needs_start=True, carriers=_MMIO, per_format=False)
class TornConfig(Game):
    """The device changes its configuration space between two reads of it."""

    aim = "times configuration space was read"
    enough = 12
    tears = 3

    @property
    def progress(self) -> int:
        """How often the driver looked."""
        return self.stage.picture.config_read_count

    def before_config_read(self, offset: int) -> None:
        """Just before the second of two reads."""
        if self.acted < self.tears and self.stage.picture.config_read_count % 2:
            self.acted += 1
            self.stage.device.store_config()

    def turn(self) -> None:
        """Have the driver look again."""
        if self.stage.device.running:
            self.stage.device.change_config()


@game("needs-reset", covers=["status.driver.4"], needs_start=True)
class NeedsReset(Game):
    """The device sets DEVICE_NEEDS_RESET when the driver has brought some buffers, and does nothing more."""

    aim = "times the driver reset the device or gave it up"
    enough = 1
    lets_go = True

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._reset_count = 0

    @property
    def progress(self) -> int:
        """What the driver did about it."""
        if not self.acted:
            return 0
        return self.stage.picture.reset_count - self._reset_count + bool(self.refused)

    def turn(self) -> None:
        """Break down once."""
        if not self.acted and self.stage.picture.used_count >= 2:
            self.acted += 1
            self._reset_count = self.stage.picture.reset_count
            self.stage.device.needs_reset(DriverViolation("the judge's game", "no fault of the driver's"))

    def overdue(self, patience: float) -> Judgement:
        """A driver that reads the status itself must not wait for what cannot come; a front end hides the status."""
        if self.acted and not self.progress and self.stage.picture.carrier is Carrier.MMIO:
            return TargetHung(f"the device needed a reset, and the driver did nothing about it for {patience:g} s")
        return super().overdue(patience)


class _NoSuchDevice(Game):
    """Is over when the driver went away, and touched nothing but what says what the device is."""

    aim = "times the driver left the device alone"
    enough = 1
    lets_go = True
    statement = ""

    @property
    def progress(self) -> int:
        """It has left."""
        return int(bool(self.refused) or self.passed_over)

    def see(self, seen: Observation) -> None:
        """Look what else is touched."""
        if isinstance(seen, RegisterAccess) and (seen.is_write or seen.offset not in _IDENTITY):
            self.fail(
                self.statement,
                expected="the device ignored",
                observed=f"{'a write' if seen.is_write else 'a read'} at {seen.offset:#x}",
            )


@game("wrong-magic", covers=["mmio.driver.registers.6"], needs_start=True, carriers=_MMIO, per_format=False)
class WrongMagic(_NoSuchDevice):
    """MagicValue is not that of virtio-mmio."""

    statement = "mmio.driver.registers.6"

    @classmethod
    def answers(cls, offset: int, value: int, read_count: int) -> int:
        """One letter is wrong."""
        return value ^ 1 if offset == Register.MAGIC_VALUE else value


@game("wrong-version", covers=["mmio.driver.registers.8"], needs_start=True, carriers=_MMIO, per_format=False)
class WrongVersion(_NoSuchDevice):
    """Version is one that does not exist."""

    statement = "mmio.driver.registers.8"

    @classmethod
    def answers(cls, offset: int, value: int, read_count: int) -> int:
        """A later one."""
        return 3 if offset == Register.VERSION else value


@game(
    "no-device",
    covers=[
        "mmio.driver.registers.10",
        "mmio.driver.registers.11",
        "mmio.driver.init.3",
        "mmio.driver.init.4",
    ],
    needs_start=True,
    carriers=_MMIO,
    per_format=False,
)
class NoDevice(_NoSuchDevice):
    """DeviceID is 0: there is no device."""

    statement = "mmio.driver.init.4"

    @classmethod
    def answers(cls, offset: int, value: int, read_count: int) -> int:
        """Nobody is here."""
        return 0 if offset == Register.DEVICE_ID else value

    def turn(self) -> None:
        """That is no error."""
        if self.refused:
            self.fail("mmio.driver.registers.11", expected="no error reported", observed=self.refused)
