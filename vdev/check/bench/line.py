"""What carries a bench to its target, made when first wanted: registers in this process, or a connection."""

from vdev.check.bench.arena import Arena
from vdev.check.bench.front_end import FrontEnd
from vdev.check.bench.mmio_control import MmioControl
from vdev.check.bench.registers import Registers
from vdev.check.bench.vhost_control import VhostControl
from vdev.check.target import Target
from vdev.check.verdict import NotApplicable
from vdev.devices.kind import Carrier
from vdev.events import Emitter

__all__ = ["Line"]


class Line:
    """From `memory` to `target`. `close` it at the end; what is wanted after that is made anew."""

    def __init__(self, target: Target, memory: Arena, events: Emitter) -> None:
        self._target = target
        self._memory = memory
        self._events = events
        self._control: MmioControl | VhostControl | None = None
        self._registers: Registers | None = None
        self._front_end: FrontEnd | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a device or a connection now."""
        return self._control is not None

    @property
    def control(self) -> MmioControl | VhostControl:
        """The calls that both carriers have. Raises what `Target.connect` and `Target.plug_in` do."""
        if self._control is None and self._target.carrier is Carrier.MMIO:
            self._registers = Registers(self._target.plug_in(self._memory.as_guest_memory()), self._events)
            self._control = MmioControl(self._registers, self._events)
        elif self._control is None:
            patience = self._target.patience
            self._front_end = FrontEnd(self._target.connect(), self._memory, patience, self._events)
            self._control = VhostControl(self._front_end, patience, self._events)
        return self._control

    @property
    def registers(self) -> Registers:
        """The raw registers. Raises NotApplicable behind vhost-user."""
        assert self.control
        if self._registers is None:
            raise NotApplicable("the device is not behind virtio-mmio registers")
        return self._registers

    @property
    def front_end(self) -> FrontEnd:
        """The raw vhost-user end. Raises NotApplicable behind virtio-mmio."""
        assert self.control
        if self._front_end is None:
            raise NotApplicable("the device is not behind a vhost-user back end")
        return self._front_end

    def close(self) -> None:
        """Close the connection and all that came and went over it."""
        self._control = self._registers = None
        if self._front_end is not None:
            self._front_end.close()
            self._front_end = None
