"""Asking for a bitmap of free pages: the guest's one buffer for requests, and the request that waits for it."""

from spec.balloon import HINT_REQUEST
from vdev.errors import DriverViolation
from vdev.memory import GuestMemory
from vdev.virtqueue.chain import Chain
from vdev.virtqueue.queue import DeviceQueue

__all__ = ["HintRequests"]

_CLAUSE = "none of the text: a buffer for requests, as HintAnswer.BITMAP has it"


class HintRequests:
    """Keeps the buffer until there is something to ask, and the request until there is a buffer."""

    def __init__(self, memory: GuestMemory) -> None:
        self.buffer: Chain | None = None
        """The guest's buffer, None while the guest has it."""
        self.waiting_id: int | None = None
        """The id under which to ask when the buffer comes."""
        self._memory = memory

    def ask(self, command_id: int, queue: DeviceQueue) -> None:
        """Ask under this id, now or when there is a buffer. Raises GuestAddressError if its memory is gone."""
        self.waiting_id = command_id
        self._send(queue)

    def withdraw(self) -> None:
        """What was not asked yet is not to be asked any more."""
        self.waiting_id = None

    def keep(self, chain: Chain, queue: DeviceQueue) -> None:
        """Take the guest's buffer. Raises DriverViolation for one that cannot hold a request, and for a second one."""
        if chain.readable or chain.writable_size < HINT_REQUEST.sizeof():
            raise self._violation(
                f"a buffer for requests that is not {HINT_REQUEST.sizeof()} writable bytes", chain, queue
            )
        if self.buffer is not None:
            raise self._violation("a second buffer for requests", chain, queue)
        self.buffer = chain
        self._send(queue)

    def forget_buffer(self) -> None:
        """The queue is gone, and the buffer with it."""
        self.buffer = None

    def _send(self, queue: DeviceQueue) -> None:
        if self.buffer is None or self.waiting_id is None:
            return
        chain, self.buffer = self.buffer, None
        size = chain.write(self._memory, HINT_REQUEST.build({"id": self.waiting_id, "flags": 0}))
        self.waiting_id = None
        queue.push(chain.head, size)

    def _violation(self, message: str, chain: Chain, queue: DeviceQueue) -> DriverViolation:
        return DriverViolation(_CLAUSE, message, queue=queue.number, descriptor=chain.head)
