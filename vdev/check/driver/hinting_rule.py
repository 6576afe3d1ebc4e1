"""What all rules about a balloon driver's hints share: the command ids that it reads, and the buffers that it sends."""

from spec.balloon import COMMAND_ID_SIZE, CONFIG, BalloonQueue, CommandId
from vdev.check.driver.balloon_rule import BalloonRule
from vdev.check.driver.config_access import field_value
from vdev.check.driver.observation import ChainMadeAvailable, ConfigRead
from vdev.check.driver.picture import Picture
from vdev.check.driver.rule import sees

__all__ = ["HintingRule"]


class HintingRule(BalloonRule):
    """Follows free_page_hint_cmd_id as the driver reads it, and the buffers of free_page_vq."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self.current: int | None = None
        """What the driver read last, None before it read anything."""
        self.read_ids: set[int] = set()
        """Command ids that the driver has read."""
        self.open_id: int | None = None
        """The id under which hints come: the driver sent it, and no STOP after it."""
        self.false_start: int | None = None
        """STOP or DONE, where the driver sent that in the place of a command id."""

    @sees(ConfigRead)
    def _read(self, seen: ConfigRead) -> None:
        value = field_value(CONFIG, "free_page_hint_cmd_id", seen)
        if value is None:
            return
        self.reads(seen, value)
        self.current = value
        if value not in (CommandId.STOP, CommandId.DONE):
            self.read_ids.add(value)

    @sees(ChainMadeAvailable)
    def _available(self, seen: ChainMadeAvailable) -> None:
        if not self.is_of(seen.number, BalloonQueue.FREE_PAGE):
            return
        readable = [each for each in seen.chain.segments if not each.is_writable]
        if not readable:
            self.pages_came(seen)
            return
        size = sum(each.size for each in readable)
        data = self.readable(seen.chain, "balloon.driver.described.hinted-pages", "a command id")
        sent = int.from_bytes(data[:COMMAND_ID_SIZE], "little")
        self.id_came(seen, sent, size)
        is_none = sent in (CommandId.STOP, CommandId.DONE)
        self.false_start = sent if sent == CommandId.DONE or (is_none and self.open_id is None) else None
        self.open_id = None if is_none else sent

    def reads(self, seen: ConfigRead, value: int) -> None:
        """Look at what the driver reads, before it is noted."""

    @property
    def waits(self) -> bool:
        """Whether the device has hints, or a report, whose pages could not be hinted."""
        queues = self.picture.queues.items()
        roles = (BalloonQueue.FREE_PAGE, BalloonQueue.REPORTING)
        return any(queue.in_flight_count for number, queue in queues if self.is_of(number, *roles))

    def pages_came(self, seen: ChainMadeAvailable) -> None:
        """Look at a hint."""

    def id_came(self, seen: ChainMadeAvailable, sent: int, size: int) -> None:
        """Look at a device-readable buffer of `size` bytes that says `sent`, before it is noted."""
