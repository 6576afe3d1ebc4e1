"""The sequence in which a driver brings a device up ("Device Initialization"), as virtio-mmio shows it."""

from spec.device import DeviceStatus
from spec.mmio import Register
from vdev.check.driver.observation import (
    ConfigWritten,
    DeviceWasReset,
    Kicked,
    Observation,
    QueueMadeReady,
    RegisterAccess,
    StatusRead,
    StatusWritten,
)
from vdev.check.driver.picture import Picture
from vdev.check.driver.rule import Rule, rule, sees
from vdev.devices.kind import Carrier

__all__: list[str] = []

_MMIO = (Carrier.MMIO,)


@rule(
    "init.begins-with-a-reset",
    covers=["init.driver.1", "mmio.driver.init.6"],
    awaits="set ACKNOWLEDGE",
    carriers=_MMIO,
)
class BeginsWithReset(Rule):
    """The device is reset, features are agreed and read back as such, queues are set up, and then it is driven."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._was_reset = False
        self._was_read_back = False

    @sees(DeviceWasReset)
    def reset(self, _: DeviceWasReset) -> None:
        """The first step."""
        self._was_reset = True
        self._was_read_back = False

    @sees(StatusRead)
    def read(self, seen: StatusRead) -> None:
        """FEATURES_OK may be seen."""
        self._was_read_back |= bool(seen.value & DeviceStatus.FEATURES_OK)

    @sees(QueueMadeReady)
    def ready(self, seen: QueueMadeReady) -> None:
        """Queues come after the agreement, which the driver has looked up."""
        self._after_agreement(f"queue {seen.number} was made ready")

    @sees(StatusWritten)
    def written(self, seen: StatusWritten) -> None:
        """Look at the first bit and the last one."""
        new = seen.value & ~seen.before
        if new & DeviceStatus.ACKNOWLEDGE:
            self.expect(
                self._was_reset,
                "init.driver.1",
                expected="a reset before ACKNOWLEDGE",
                observed=f"a status of {seen.value:#x} as the first one written",
            )
        if new & DeviceStatus.DRIVER_OK:
            self._after_agreement("DRIVER_OK was set")

    def _after_agreement(self, what: str) -> None:
        self.expect(
            self._was_read_back,
            "mmio.driver.init.6",
            expected="FEATURES_OK read back before the device is set up",
            observed=f"{what} without that",
        )


@rule("init.no-early-config-write", covers=["init.driver.3"], awaits="came as far as FEATURES_OK", carriers=_MMIO)
class NoEarlyConfigWrite(Rule):
    """Configuration space is not written before FEATURES_OK."""

    @sees(StatusWritten)
    def written(self, seen: StatusWritten) -> None:
        """With this step it was kept."""
        self.is_exercised |= bool(seen.value & DeviceStatus.FEATURES_OK)

    @sees(ConfigWritten)
    def config_written(self, seen: ConfigWritten) -> None:
        """Look whether it may be."""
        self.expect(
            bool(self.picture.status & DeviceStatus.FEATURES_OK),
            "init.driver.3",
            expected="no write to configuration space before FEATURES_OK",
            observed=f"{seen.value:#x} written at {seen.offset:#x} with a status of {self.picture.status:#x}",
        )


@rule("init.stops-where-refused", covers=["init.driver.6"], awaits="was refused FEATURES_OK", carriers=_MMIO)
class StopsWhereRefused(Rule):
    """A driver whose features were refused does not go on with the device before it resets it."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._is_refused = False

    @sees(StatusRead)
    def read(self, seen: StatusRead) -> None:
        """Look whether the driver was told."""
        if self._asked and not seen.value & DeviceStatus.FEATURES_OK:
            self._is_refused = self.is_exercised = True

    _asked = False

    @sees(StatusWritten, RegisterAccess, Kicked, DeviceWasReset)
    def went_on(self, seen: Observation) -> None:
        """Look at what the driver does then."""
        if isinstance(seen, DeviceWasReset):
            self._asked = self._is_refused = False
        elif isinstance(seen, StatusWritten):
            self._asked |= bool(seen.value & DeviceStatus.FEATURES_OK)
            if seen.value & DeviceStatus.DRIVER_OK:
                self._hold("DRIVER_OK was set")
        elif isinstance(seen, Kicked):
            self._hold(f"queue {seen.number} was kicked")
        elif isinstance(seen, RegisterAccess) and seen.is_write and seen.offset == Register.QUEUE_READY:
            self._hold(f"{seen.value} was written to QueueReady of queue {seen.queue}")

    def _hold(self, what: str) -> None:
        if self._is_refused:
            self.expect(
                False,
                "init.driver.6",
                expected="FAILED or a reset after FEATURES_OK did not stay",
                observed=what,
            )


@rule("init.no-early-kick", covers=["init.driver.7"], awaits="kicked a queue", carriers=_MMIO)
class NoEarlyKick(Rule):
    """No available buffer notification is sent before DRIVER_OK."""

    @sees(RegisterAccess)
    def access(self, seen: RegisterAccess) -> None:
        """Look at kicks."""
        if seen.is_write and seen.offset == Register.QUEUE_NOTIFY:
            self.expect(
                bool(self.picture.status & DeviceStatus.DRIVER_OK),
                "init.driver.7",
                expected="no write to QueueNotify before DRIVER_OK",
                observed=f"{seen.value:#x} written with a status of {self.picture.status:#x}",
            )
