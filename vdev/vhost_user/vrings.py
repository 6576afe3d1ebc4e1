"""The rings of one session: what the messages about them do."""

from collections.abc import Callable
from typing import Any

from spec.vhost_user import NO_FD, VRING_INDEX_MASK, VRING_STATE, VringFlag
from vdev.errors import FrontEndViolation
from vdev.vhost_user.event_fd import EventFd
from vdev.vhost_user.framing import Message
from vdev.vhost_user.memory_table import MemoryTable
from vdev.vhost_user.vring import Vring, VringAddresses

__all__ = ["Vrings"]

_CLAUSE = "Ring states"


class Vrings:
    """Rings of a device that has `count` queues. `settle` is called for a ring whose set-up or state changed.

    `size_max` gives the most descriptors of a ring; `before_close` is told of a descriptor that is going to be closed.
    """

    def __init__(
        self,
        count: int,
        memory: MemoryTable,
        *,
        size_max: Callable[[int], int],
        settle: Callable[[Vring], None],
        before_close: Callable[[int], None],
    ) -> None:
        self.all = [Vring(number) for number in range(count)]
        self._memory = memory
        self._size_max = size_max
        self._settle = settle
        self._before_close = before_close

    @property
    def is_any_started(self) -> bool:
        """Whether the device is not suspended."""
        return any(ring.is_started for ring in self.all)

    @property
    def is_any_served(self) -> bool:
        """Whether the device runs, as the front end sees it."""
        return any(ring.is_served for ring in self.all)

    def named(self, index: int) -> Vring:
        """Return the ring with this index. Raises FrontEndViolation if there is none."""
        if index >= len(self.all):
            raise FrontEndViolation("Multiple queue support", f"there are {len(self.all)} queues", queue=index)
        return self.all[index]

    def set_size(self, payload: Any, _: Message) -> None:
        """SET_VRING_NUM."""
        ring, size = self.named(payload.index), payload.num
        most = self._size_max(ring.number)
        if not 0 < size <= most:
            raise FrontEndViolation(
                "Front-end message types", f"a size of {size}, not between 1 and {most}", queue=ring.number
            )
        ring.size = size
        self._settle(ring)

    def set_addresses(self, payload: Any, message: Message) -> None:
        """SET_VRING_ADDR; while the ring is started, only whether and where it is logged may change."""
        ring = self.named(payload.index)
        if payload.flags & ~int(VringFlag.LOG):
            raise FrontEndViolation(
                "A vring address description", f"unknown flags {payload.flags:#x}", queue=ring.number
            )
        descriptor, driver, device = (
            self._memory.translate(address, "SET_VRING_ADDR", ring.number)
            for address in (payload.descriptor, payload.available, payload.used)
        )
        log = payload.log if payload.flags & VringFlag.LOG else None
        addresses = VringAddresses(descriptor, driver, device, log)
        if ring.is_started and ring.addresses is not None and addresses.areas != ring.addresses.areas:
            raise FrontEndViolation(_CLAUSE, "a started ring cannot be moved", queue=ring.number)
        ring.addresses = addresses
        self._settle(ring)

    def set_base(self, payload: Any, _: Message) -> None:
        """SET_VRING_BASE: 32 bits, what they mean is the ring format's business."""
        self.named(payload.index).base = payload.num

    def get_base(self, payload: Any, _: Message) -> bytes:
        """GET_VRING_BASE: stop the ring and say where it stood."""
        ring = self.named(payload.index)
        self.stop(ring)
        answer: bytes = VRING_STATE.build({"index": ring.number, "num": ring.base or 0})
        return answer

    def set_kick(self, payload: Any, message: Message) -> None:
        """SET_VRING_KICK: start the ring."""
        ring = self._with_fd(payload, message)
        ring.set_kick(self._take_event(ring, message, read=True))
        ring.is_started = True
        self._settle(ring)
        ring.on_change()

    def set_call(self, payload: Any, message: Message) -> None:
        """SET_VRING_CALL."""
        ring = self._with_fd(payload, message)
        ring.set_call(self._take_event(ring, message))

    def set_err(self, payload: Any, message: Message) -> None:
        """SET_VRING_ERR."""
        ring = self._with_fd(payload, message)
        ring.set_err(self._take_event(ring, message))

    def set_enabled(self, payload: Any, _: Message) -> None:
        """SET_VRING_ENABLE."""
        ring = self.named(payload.index)
        if payload.num > 1:
            raise FrontEndViolation(_CLAUSE, f"enabled as {payload.num}, not 0 or 1", queue=ring.number)
        self.enable(ring, bool(payload.num))

    def enable(self, ring: Vring, is_enabled: bool) -> None:
        """Enable or disable a ring, whether it is started or not."""
        ring.is_enabled = is_enabled
        self._settle(ring)

    def stop(self, ring: Vring) -> None:
        """Stop a ring; it knows then where it stood, and waits for another kick descriptor."""
        ring.is_started = False
        self._settle(ring)
        ring.set_kick(None)

    def close(self) -> None:
        """Stop all rings and close their descriptors."""
        for ring in self.all:
            self.stop(ring)
            ring.close()

    def _with_fd(self, payload: Any, message: Message) -> Vring:
        value = payload.value
        ring = self.named(value & VRING_INDEX_MASK)
        if value & ~(VRING_INDEX_MASK | NO_FD):
            raise FrontEndViolation("Front-end message types", f"unknown bits {value:#x}", queue=ring.number)
        if bool(message.fds) == bool(value & NO_FD):
            what = "a file descriptor came along" if message.fds else "no file descriptor came along"
            raise FrontEndViolation("Front-end message types", f"{what}, bit 8 says otherwise", queue=ring.number)
        return ring

    def _take_event(self, ring: Vring, message: Message, *, read: bool = False) -> EventFd | None:
        fds = message.take_fds()
        if not fds:
            return None
        try:
            return EventFd(fds[0], self._before_close if read else lambda _: None)
        except ValueError as error:
            raise FrontEndViolation("Communication", str(error), queue=ring.number) from error
