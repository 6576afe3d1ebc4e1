"""One ring as its front end has it: the states it goes through, and the eventfds that it shares with the back end."""

from enum import Enum

from guest_agent.virtqueue.queue import DriverAddresses
from vdev.notify import EventfdDoorbell

__all__ = ["RING_STEPS", "Ring", "RingState", "RingStep"]


class RingState(Enum):
    """What the back end was told of a ring ("Starting and stopping rings")."""

    CONFIGURED = "configured"
    """It knows size, base, addresses and how to call: everything but the kick."""
    STARTED = "started"
    """It has the kick; it does not process the ring yet."""
    ENABLED = "enabled"
    """It processes the ring."""
    STOPPED = "stopped"
    """It gave the base back, and does not touch the ring any more."""


class RingStep(Enum):
    """What the front end does to a ring."""

    CONFIGURE = "configure"
    START = "start"
    ENABLE = "enable"
    DISABLE = "disable"
    STOP = "stop"


RING_STEPS: dict[RingState, dict[RingStep, RingState]] = {
    RingState.CONFIGURED: {RingStep.START: RingState.STARTED},
    RingState.STARTED: {RingStep.ENABLE: RingState.ENABLED, RingStep.STOP: RingState.STOPPED},
    RingState.ENABLED: {RingStep.DISABLE: RingState.STARTED, RingStep.ENABLE: RingState.ENABLED},
    RingState.STOPPED: {RingStep.CONFIGURE: RingState.CONFIGURED},
}
"""State -> what may be done then, and what comes of it. A ring begins STOPPED."""


class Ring:
    """Ring `number`: where it lies, from which base a back end goes on, and its kick, call and err eventfds.

    The eventfds exist from `open_bells` to `close_bells`: each back end gets its own, so that one which was left
    cannot go on calling.
    """

    def __init__(self, number: int, addresses: DriverAddresses, base: int) -> None:
        self.number = number
        self.addresses = addresses
        self.base = base
        self.state = RingState.STOPPED
        self.kick_count = 0
        self.kick: EventfdDoorbell | None = None
        self.call: EventfdDoorbell | None = None
        self.err: EventfdDoorbell | None = None

    def step(self, step: RingStep) -> None:
        """Go on by the table. Raises RuntimeError for a step that makes no sense now: a bug of the caller."""
        allowed = RING_STEPS[self.state]
        if step not in allowed:
            raise RuntimeError(f"ring {self.number} is {self.state.value}: one does not {step.value} it")
        self.state = allowed[step]

    def open_bells(self) -> tuple[EventfdDoorbell, EventfdDoorbell, EventfdDoorbell]:
        """Make new eventfds and return them: kick, call, err."""
        self.close_bells()
        self.kick, self.call, self.err = EventfdDoorbell(), EventfdDoorbell(), EventfdDoorbell()
        return self.kick, self.call, self.err

    def close_bells(self) -> None:
        """Close the eventfds."""
        for bell in (self.kick, self.call, self.err):
            if bell is not None:
                bell.close()
        self.kick = self.call = self.err = None
