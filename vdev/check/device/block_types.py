"""Checks of request types that need no data of a sector: names, flushes, lifetimes, and what nobody knows."""

from typing import TYPE_CHECKING

from spec.block import ID_SIZE, BlockFeature, RequestStatus, RequestType
from spec.block_zones import ZoneRequestType
from vdev.check.device.block_disk import BLOCK, Answer, Disk, name_of_status
from vdev.check.registry import BOTH, check

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

# The legacy SCSI commands are 2 and 3, and types that only a later text may give out are not used.
_UNKNOWN = (9, 0x4D, 0x7FFF_FFFF, 0xFFFF_FFFE)

_WITHOUT_DATA = (
    ZoneRequestType.OPEN,
    ZoneRequestType.CLOSE,
    ZoneRequestType.FINISH,
    ZoneRequestType.RESET,
    ZoneRequestType.RESET_ALL,
)

_LIFETIME_SIZE = 6
_LAST_PRE_EOL, _LAST_ESTIMATE = 3, 0x0B


@check("block-types.unknown-are-unsupported", covers=["block.device.described.unsupported"], formats=BOTH, types=BLOCK)
def unknown_are_unsupported(bench: "Bench") -> None:
    """A type of request that nobody knows is answered with UNSUPP, and the next request with what it asks."""
    disk = Disk(bench)
    for kind in _UNKNOWN:
        _expect_unsupported(bench, disk.ask(kind, to_read=512), "block.device.described.unsupported")
    after = disk.ask(RequestType.IN, to_read=disk.unit)
    bench.expect(
        after.is_ok,
        "block.device.described.unsupported",
        expected="OK for a read after it",
        observed=f"status {name_of_status(after.status)}",
        shown=after.shown(),
    )


@check("block-types.zone-requests-are-unsupported", covers=["block.device.operation.18"], types=BLOCK)
def zone_requests_are_unsupported(bench: "Bench") -> None:
    """Without ZONED, every request for zones is answered with UNSUPP."""
    disk = Disk(bench)
    _expect_unsupported(bench, disk.ask(ZoneRequestType.REPORT, to_read=512), "block.device.operation.18")
    if disk.has(BlockFeature.ZONED):
        return  # the others change zones where they are obeyed
    # This append carries no data, so that one which is taken for a write writes nothing.
    _expect_unsupported(bench, disk.ask(ZoneRequestType.APPEND, to_read=8), "block.device.operation.18")
    for kind in _WITHOUT_DATA:
        _expect_unsupported(bench, disk.ask(kind), "block.device.operation.18")


@check("block-types.id-is-a-name", covers=["block.device.described.id"], formats=BOTH, types=BLOCK)
def id_is_a_name(bench: "Bench") -> None:
    """GET_ID gives the same 20 bytes each time, with nothing behind the first zero."""
    disk = Disk(bench)
    first, second = (disk.ask(RequestType.GET_ID, to_read=ID_SIZE) for _ in range(2))
    if first.status == RequestStatus.UNSUPP:
        bench.not_applicable("the device does not know GET_ID")
    name, _, rest = first.data.partition(b"\0")
    bench.expect(
        first.is_ok and not any(rest),
        "block.device.described.id",
        expected=f"OK and {ID_SIZE} bytes: a name, then zeros",
        observed=f"status {name_of_status(first.status)}, {first.data.hex(' ')}",
        shown=first.shown(),
    )
    bench.expect(
        second.data == first.data,
        "block.device.described.id",
        expected=f"the name {name!r} again",
        observed=second.data.hex(" "),
        shown=second.shown(),
    )


@check(
    "block-types.flush-is-answered",
    covers=["block.device.described.flush"],
    formats=BOTH,
    types=BLOCK,
    features=[BlockFeature.FLUSH],
)
def flush_is_answered(bench: "Bench") -> None:
    """A flush is answered with OK."""
    disk = Disk(bench, BlockFeature.FLUSH)
    answer = disk.ask(RequestType.FLUSH)
    bench.expect(
        answer.is_ok,
        "block.device.described.flush",
        expected="OK for a flush",
        observed=f"status {name_of_status(answer.status)}",
        shown=answer.shown(),
    )


@check(
    "block-types.lifetime-has-no-reserved-value",
    covers=["block.device.operation.17", "block.device.described.lifetime"],
    types=BLOCK,
    features=[BlockFeature.LIFETIME],
)
def lifetime_has_no_reserved_value(bench: "Bench") -> None:
    """The lifetime metrics are values that the text defines."""
    disk = Disk(bench, BlockFeature.LIFETIME)
    answer = disk.ask(RequestType.GET_LIFETIME, to_read=_LIFETIME_SIZE)
    bench.expect(
        answer.is_ok,
        "block.device.described.lifetime",
        expected="OK for GET_LIFETIME",
        observed=f"status {name_of_status(answer.status)}",
        shown=answer.shown(),
    )
    pre_eol, *estimates = (int.from_bytes(answer.data[at : at + 2], "little") for at in (0, 2, 4))
    bench.expect(
        pre_eol <= _LAST_PRE_EOL and max(estimates) <= _LAST_ESTIMATE,
        "block.device.operation.17",
        expected=f"pre_eol_info up to {_LAST_PRE_EOL}, both estimates up to {_LAST_ESTIMATE}",
        observed=f"pre_eol_info {pre_eol}, estimates {estimates[0]} and {estimates[1]}",
        shown=answer.shown(),
    )


def _expect_unsupported(bench: "Bench", answer: Answer, statement: str) -> None:
    bench.expect(
        answer.status == RequestStatus.UNSUPP,
        statement,
        expected=f"UNSUPP for {answer.request}",
        observed=f"status {name_of_status(answer.status)}",
        shown=answer.shown(),
    )
