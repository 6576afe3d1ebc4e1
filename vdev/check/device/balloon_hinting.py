"""Checks of free page hinting: ids, pages that count and pages that do not, and the end of it."""

from typing import TYPE_CHECKING

from spec.balloon import COMMAND_ID, BalloonFeature, BalloonQueue, CommandId
from vdev.check.device.balloon_bench import BALLOON, Balloon
from vdev.check.registry import BOTH, check

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

_HINTING = [BalloonFeature.FREE_PAGE_HINT]
_OURS = b"this page is free, but nobody asked. "
_FIELD = "free_page_hint_cmd_id"
_FIRST_ID = 2


def _id(value: int) -> bytes:
    data: bytes = COMMAND_ID.build({"id": value})
    return data


def _is_id(value: int) -> bool:
    return value >= _FIRST_ID


def _answer(balloon: Balloon, command_id: int, pages: list[int]) -> None:
    """Hint pages under an id, each in a buffer of its own, and end with STOP."""
    balloon.send(BalloonQueue.FREE_PAGE, _id(command_id))
    for page in pages:
        balloon.send(BalloonQueue.FREE_PAGE, writable=[page])
    balloon.send(BalloonQueue.FREE_PAGE, _id(CommandId.STOP))


def _requested(balloon: Balloon) -> int:
    """Have the host ask for hints; return the id."""
    balloon.bench.host("hints-request")
    return balloon.wait_field(_FIELD, _is_id, "balloon.device.described.command-id", expected="an id of 2 or more")


@check(
    "balloon-hints.all-come-back",
    covers=["balloon.device.described.hints-returned", "balloon.device.described.nothing-written"],
    formats=BOTH,
    types=BALLOON,
    features=_HINTING,
)
def all_come_back(bench: "Bench") -> None:
    """Ids and pages that nobody asked for are given back with nothing written."""
    balloon = Balloon(bench, *_HINTING)
    pages = balloon.pages(6)
    ring = bench.ring(balloon.numbers[BalloonQueue.FREE_PAGE])
    balloon.expect_nothing_written(balloon.send(BalloonQueue.FREE_PAGE, _id(0x1234)), "an id")
    for chosen in (pages[:1], pages[1:3], pages[3:]):
        used = balloon.send(BalloonQueue.FREE_PAGE, writable=chosen)
        balloon.expect_nothing_written(used, f"{len(chosen)} hinted pages")
    balloon.expect_nothing_written(balloon.send(BalloonQueue.FREE_PAGE, _id(CommandId.STOP)), "STOP")
    again = ring.used_now()
    bench.expect(
        not again,
        "balloon.device.described.hints-returned",
        expected="each buffer back once",
        observed=f"{len(again)} more used elements",
    )


@check(
    "balloon-hints.unasked-pages-stay",
    covers=["balloon.device.hinting.3"],
    formats=BOTH,
    types=BALLOON,
    features=_HINTING,
)
def unasked_pages_stay(bench: "Bench") -> None:
    """Pages under an id that the device does not show are ignored: they keep their content."""
    balloon = Balloon(bench, *_HINTING)
    pages = balloon.pages(5, _OURS)
    shown = balloon.field(_FIELD)
    _answer(balloon, 0x8000_1234 if shown != 0x8000_1234 else 0x8000_1235, pages)
    balloon.has_done_with()
    balloon.expect_content(
        pages, _OURS, "balloon.device.hinting.3", when=f"as it was hinted under an id other than {shown:#x}"
    )


@check(
    "balloon-hints.stop-at-first",
    covers=["balloon.device.described.command-id"],
    types=BALLOON,
    features=_HINTING,
)
def stop_at_first(bench: "Bench") -> None:
    """A balloon that was just started asks for nothing, or shows an id that is one."""
    balloon = Balloon(bench, *_HINTING)
    found = balloon.field(_FIELD)
    bench.expect(
        found in (CommandId.STOP, CommandId.DONE) or _is_id(found),
        "balloon.device.described.command-id",
        expected="STOP, DONE or an id",
        observed=f"{found:#x}",
    )
    if found not in (CommandId.STOP, CommandId.DONE):
        bench.inconclusive(f"hints are asked for with id {found:#x}: the host may have begun to migrate")
    bench.expect(
        found == CommandId.STOP,
        "balloon.device.described.command-id",
        expected="STOP before anybody asked for hints",
        observed=f"{found:#x}",
    )


@check(
    "balloon-hints.right-id-counts",
    covers=["balloon.device.described.hints-applied", "balloon.device.described.command-id"],
    formats=BOTH,
    types=BALLOON,
    features=_HINTING,
)
def right_id_counts(bench: "Bench") -> None:
    """Pages under the id that the host asked for count, until the driver's STOP."""
    balloon = Balloon(bench, *_HINTING)
    pages = balloon.pages(7)
    command_id = _requested(balloon)
    _answer(balloon, command_id, pages[:4])
    balloon.send(BalloonQueue.FREE_PAGE, writable=pages[4:])
    balloon.wait_figure(
        "hinted_pages",
        lambda count: count == 4,
        "balloon.device.described.hints-applied",
        expected="4 pages hinted",
    )


@check(
    "balloon-hints.stale-id-is-ignored",
    covers=["balloon.device.hinting.3"],
    formats=BOTH,
    types=BALLOON,
    features=_HINTING,
)
def stale_id_is_ignored(bench: "Bench") -> None:
    """Pages under the id of an earlier request do not count for the one that stands."""
    balloon = Balloon(bench, *_HINTING)
    pages = balloon.pages(8)
    old = _requested(balloon)
    bench.host("hints-stop")
    balloon.settles(_FIELD, CommandId.STOP)
    new = _requested(balloon)
    if new == old:
        bench.inconclusive(f"the id {old:#x} was used twice")
    _answer(balloon, old, pages[:5])
    count = bench.host("figures")["hinted_pages"]
    bench.expect(
        count == 0,
        "balloon.device.hinting.3",
        expected=f"no page of id {old:#x} to count, while {new:#x} is asked for",
        observed=f"{count} pages that count",
    )


@check(
    "balloon-hints.stop-is-shown",
    covers=["balloon.device.hinting.1"],
    types=BALLOON,
    features=_HINTING,
)
def stop_is_shown(bench: "Bench") -> None:
    """When the host takes no more hints, the field says STOP."""
    balloon = Balloon(bench, *_HINTING)
    _requested(balloon)
    bench.host("hints-stop")
    balloon.wait_field(_FIELD, lambda found: found == CommandId.STOP, "balloon.device.hinting.1", expected="STOP")


@check(
    "balloon-hints.id-is-not-used-twice",
    covers=["balloon.device.hinting.2"],
    types=BALLOON,
    features=_HINTING,
)
def id_is_not_used_twice(bench: "Bench") -> None:
    """As long as the driver did not post STOP, each request has an id of its own."""
    balloon = Balloon(bench, *_HINTING)
    seen: list[int] = []
    for _ in range(4):
        command_id = _requested(balloon)
        bench.expect(
            command_id not in seen,
            "balloon.device.hinting.2",
            expected=f"an id other than {', '.join(map(hex, seen))}",
            observed=f"{command_id:#x}",
        )
        seen.append(command_id)
        bench.host("hints-stop")
        balloon.settles(_FIELD, CommandId.STOP)


@check(
    "balloon-hints.done-is-shown",
    covers=["balloon.device.hinting.6", "balloon.device.hinting.5"],
    formats=BOTH,
    types=BALLOON,
    features=_HINTING,
)
def done_is_shown(bench: "Bench") -> None:
    """When the host needs the pages no more, the field says DONE, and from then on their content is the driver's."""
    balloon = Balloon(bench, *_HINTING)
    pages = balloon.pages(5)
    _answer(balloon, _requested(balloon), pages)
    bench.host("hints-done")
    balloon.wait_field(_FIELD, lambda found: found == CommandId.DONE, "balloon.device.hinting.6", expected="DONE (1)")
    for page in pages:
        balloon.fill(page, _OURS)
    # What the device still finds in its queue is no reason to touch them either.
    balloon.send(BalloonQueue.FREE_PAGE, _id(CommandId.STOP))
    balloon.has_done_with()
    balloon.expect_content(pages, _OURS, "balloon.device.hinting.5", when="after the device said DONE")
