"""How a balloon driver answers when it is asked for free pages ("Free Page Hinting")."""

from spec.balloon import COMMAND_ID_SIZE, CONFIG, BalloonFeature, CommandId
from vdev.check.driver.config_access import covers_only
from vdev.check.driver.hinting_rule import HintingRule
from vdev.check.driver.observation import ChainMadeAvailable, ConfigRead, Rested
from vdev.check.driver.picture import Picture
from vdev.check.driver.rule import rule, sees

__all__: list[str] = []

_TYPES = ("balloon",)
_NEEDS = (BalloonFeature.FREE_PAGE_HINT,)
_FEW = 4
"""So many hinted blocks tell something of what becomes of all."""


@rule("balloon.id-size", covers=["balloon.driver.hinting.1"], awaits="sent a command id", types=_TYPES, features=_NEEDS)
class CommandIdSize(HintingRule):
    """A device-readable buffer in free_page_vq has four bytes."""

    def id_came(self, seen: ChainMadeAvailable, sent: int, size: int) -> None:
        """Look at its size."""
        self.expect(
            size == COMMAND_ID_SIZE
            and len(seen.chain.segments) == len([s for s in seen.chain.segments if not s.is_writable]),
            "balloon.driver.hinting.1",
            expected=f"a buffer of {COMMAND_ID_SIZE} bytes",
            observed=f"one of {seen.chain.size} bytes",
            shown=seen.chain.show(),
        )


@rule(
    "balloon.hints-begin-with-the-id",
    covers=["balloon.driver.hinting.2"],
    awaits="hinted a page",
    types=_TYPES,
    features=_NEEDS,
)
class BeginsWithId(HintingRule):
    """Hints begin with a buffer that holds the command id in force."""

    def id_came(self, seen: ChainMadeAvailable, sent: int, size: int) -> None:
        """It is an id that the device gave, or STOP."""
        if sent not in (CommandId.STOP, CommandId.DONE) and size == COMMAND_ID_SIZE:
            self.expect(
                sent in self.read_ids,
                "balloon.driver.hinting.2",
                expected="a command id, which is 2 or more, that the driver read",
                observed=f"{sent:#x}",
                shown=seen.chain.show(),
            )

    def pages_came(self, seen: ChainMadeAvailable) -> None:
        """An id came before. One that begins with what the field says then, STOP or DONE, is another rule's."""
        if self.false_start is not None:
            return
        self.expect(
            self.open_id is not None,
            "balloon.driver.hinting.2",
            expected="a buffer with the command id before the first hint, and none behind STOP",
            observed=f"a hint of {seen.chain.size} bytes without",
            shown=seen.chain.show(),
        )


@rule("balloon.id-once", covers=["balloon.driver.hinting.3"], awaits="sent a command id", types=_TYPES, features=_NEEDS)
class IdOnce(HintingRule):
    """A command id is sent once and no more."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._sent: set[int] = set()

    def reads(self, seen: ConfigRead, value: int) -> None:
        """An id that is given out anew, after something else, may be sent anew."""
        if value != self.current:
            self._sent.discard(value)

    def id_came(self, seen: ChainMadeAvailable, sent: int, size: int) -> None:
        """It was not sent before."""
        if sent in (CommandId.STOP, CommandId.DONE):
            return
        self.expect(
            sent not in self._sent,
            "balloon.driver.hinting.3",
            expected=f"one buffer with the command id {sent:#x}",
            observed="a second one",
            shown=seen.chain.show(),
        )
        self._sent.add(sent)


@rule("balloon.hints", covers=["balloon.driver.hinting.4"], awaits="was asked for hints", types=_TYPES, features=_NEEDS)
class Hints(HintingRule):
    """While free_page_hint_cmd_id is 2 or more, the driver sends free pages."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._answered: int | None = None

    def id_came(self, seen: ChainMadeAvailable, sent: int, size: int) -> None:
        """The driver begins to answer; it may have no free page."""
        if sent != CommandId.STOP:
            self._answered = sent

    def pages_came(self, seen: ChainMadeAvailable) -> None:
        """It does."""
        self.expect(True, "balloon.driver.hinting.4", expected="", observed="")

    @sees(Rested)
    def rested(self, seen: Rested) -> None:
        """By now it has begun."""
        wanted = self.current
        if wanted in (None, CommandId.STOP, CommandId.DONE) or not self.is_working or self.waits:
            return
        if wanted != self._answered:
            self.due(
                False,
                "balloon.driver.hinting.4",
                seen,
                expected=f"hints under the command id {wanted:#x}, which the driver read",
                observed="nothing came under it",
            )


@rule(
    "balloon.hints-end",
    covers=["balloon.driver.hinting.6"],
    awaits="had no more pages to hint",
    types=_TYPES,
    features=_NEEDS,
)
class EndsHints(Hints):
    """A driver that has no more pages ends its hints with STOP."""

    def id_came(self, seen: ChainMadeAvailable, sent: int, size: int) -> None:
        """Here is the end."""
        if sent == CommandId.STOP and self.open_id is not None:
            self.expect(True, "balloon.driver.hinting.6", expected="", observed="")

    def pages_came(self, seen: ChainMadeAvailable) -> None:
        """Not yet."""

    @sees(Rested)
    def rested(self, seen: Rested) -> None:
        """While the device still wants hints, and has given all back, the driver only rests if it is at its end."""
        if self.open_id is not None and self.open_id == self.current and self.is_working and not self.waits:
            self.due(
                False,
                "balloon.driver.hinting.6",
                seen,
                expected=f"STOP after the last hint under the command id {self.open_id:#x}",
                observed="nothing came after it",
            )


@rule(
    "balloon.hints-stop",
    covers=["balloon.driver.hinting.5"],
    awaits="was told to stop hinting",
    types=_TYPES,
    features=_NEEDS,
)
class StopsHints(HintingRule):
    """When free_page_hint_cmd_id turns to STOP or DONE, the driver sends no more pages.

    It may send what it had collected before it looked, and a back end sees the ring later than the driver fills it: so
    as much as the queue holds.
    """

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._late = 0
        self._is_stopped = False

    def reads(self, seen: ConfigRead, value: int) -> None:
        """From now on no more pages."""
        stops = value in (CommandId.STOP, CommandId.DONE)
        if not stops:
            self._is_stopped, self._late = False, 0
        elif self.open_id is not None:
            # A front end reads more than its driver does: the second read is the driver's.
            self._is_stopped = covers_only(CONFIG, "free_page_hint_cmd_id", seen) or self.current == value
            self.expect(True, "balloon.driver.hinting.5", expected="", observed="")

    def pages_came(self, seen: ChainMadeAvailable) -> None:
        """Count those that came late. Who sends STOP or DONE first has read that."""
        if self.false_start is not None:
            self.expect(
                False,
                "balloon.driver.hinting.5",
                expected="no hints while free_page_hint_cmd_id is STOP or DONE",
                observed=f"the driver sent {CommandId(self.false_start).name} in place of a command id, and then hints",
                shown=seen.chain.show(),
            )
        if not self._is_stopped:
            return
        self._late += 1
        allowed = self.picture.queues[seen.number].areas.size
        self.expect(
            self._late <= allowed,
            "balloon.driver.hinting.5",
            expected="no more hints once the driver has read STOP or DONE",
            observed=f"{self._late} after that",
            shown=seen.chain.show(),
        )


@rule(
    "balloon.done-frees",
    covers=["balloon.driver.hinting.10"],
    awaits="was asked for hints again after DONE",
    types=_TYPES,
    features=_NEEDS,
)
class DoneFrees(HintingRule):
    """On DONE all hinted pages go back into use: of several that are hinted the next time, some were hinted before."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._blocks: set[int] = set()
        self._before: set[int] = set()
        self._had_done = False

    def reads(self, seen: ConfigRead, value: int) -> None:
        """DONE: what was hinted so far is free again."""
        if value == CommandId.DONE and self._blocks and self.open_id is None:
            self._before, self._blocks = self._blocks, set()

    def pages_came(self, seen: ChainMadeAvailable) -> None:
        """Note it."""
        self._blocks.update(each.address for each in seen.chain.segments)

    def id_came(self, seen: ChainMadeAvailable, sent: int, size: int) -> None:
        """At the end of the next hints, compare."""
        if sent != CommandId.STOP or self.open_id is None:
            return
        if min(len(self._before), len(self._blocks)) >= _FEW:
            before, self._before = self._before, set()
            self.expect(
                bool(before & self._blocks),
                "balloon.driver.hinting.10",
                expected=f"some of the {len(before)} blocks that were hinted before DONE to be hinted again",
                observed=f"{len(self._blocks)} blocks, none of them",
                shown=seen.chain.show(),
            )
