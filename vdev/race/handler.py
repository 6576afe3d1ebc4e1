"""The host's handler of the free page queue as an actor: whole in one act, or in pieces."""

from host_migrator.hint_work import HintWork
from host_migrator.strategies import Strategy
from vdev.devices.balloon import BalloonDevice
from vdev.virtqueue.queue import DeviceQueue

__all__ = ["Handler"]


class Handler:
    """Runs when the queue was kicked; from a timer, whenever there is something in it."""

    def __init__(self, device: BalloonDevice, work: HintWork, strategy: Strategy) -> None:
        self.device = device
        self.work = work
        self.strategy = strategy
        self.was_kicked = False
        self.in_exit = False
        """Whether a vCPU stands still until the kick is handled."""

    @property
    def queue(self) -> DeviceQueue:
        """The queue that it handles."""
        queue = self.device.hint_queue()
        if queue is None:
            raise ValueError("the balloon has no queue for hints")
        return queue

    def kick(self) -> None:
        """The driver kicked."""
        self.was_kicked = True
        self.in_exit = self.strategy.needs_exits

    def next_act(self, *, is_served: bool) -> str | None:
        """Return what it does next; nothing new is begun unless the queue `is_served`."""
        piece = self.work.next_step
        if piece is not None:
            return str(piece)
        if not is_served or not (self.was_kicked or self.device.hinting.polled) or not self.queue.has_available():
            return None
        return "handle" if self.strategy.locked else "pop"

    def do(self, name: str) -> None:
        """Do what `next_act` says."""
        if name not in ("handle", "pop"):
            self.work.do_next()
        elif self.device.hinting.polled:
            self.device.poll_hints()
        else:
            # The device answers true if it has more to do, and is then to be called again: as another kick would.
            self.was_kicked = self.device.queue_notify(self.queue.number)
        self.settle()

    def settle(self) -> None:
        """A kick for what was taken meanwhile is forgotten; an exit ends when all is handled."""
        if self.was_kicked and not self.queue.has_available():
            self.was_kicked = False
        if self.in_exit and not self.was_kicked and self.work.next_step is None:
            self.in_exit = False
