"""Checks of the entropy device."""

from itertools import pairwise
from typing import TYPE_CHECKING

from vdev.check.bench.arena import FILL
from vdev.check.bench.request import Request
from vdev.check.evidence import Shown
from vdev.check.registry import BOTH, check

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

_TYPES = ("entropy",)
_ENOUGH = 16
"""Bytes that do not come twice by chance: once in 2^128."""
_LARGE = 16 << 20


def _take(bench: "Bench", size: int) -> tuple[bytes, int]:
    """Have a buffer of `size` bytes filled; return all of its bytes, and the used length."""
    ring = bench.ring()
    posted = ring.post(Request(writable_size=size))
    ring.publish()
    ring.kick()
    used = ring.wait_used()
    written = ring.written(posted)
    ring.release(posted)
    return written, used.length


@check("entropy.gives-at-least-one-byte", covers=["entropy.device.operation.1"], formats=BOTH, types=_TYPES)
def gives_at_least_one_byte(bench: "Bench") -> None:
    """A buffer of any size gets one byte at least, and no more than it has room for."""
    bench.start()
    for size in (1, 2, 63, 4096, 10_000):
        _, length = _take(bench, size)
        bench.expect(
            1 <= length <= size,
            "entropy.device.operation.1",
            expected=f"a used length from 1 to {size}",
            observed=f"used length {length}",
        )


@check(
    "entropy.length-is-what-was-written", covers=["entropy.device.described.used-length"], formats=BOTH, types=_TYPES
)
def length_is_what_was_written(bench: "Bench") -> None:
    """The used length counts the random bytes: it is not more than were stored, nor less."""
    bench.start()
    for size in (64, 4096):
        written, length = _take(bench, size)
        given, rest = written[:length], written[length:]
        # A run of the fill at the end of what was given, longer than chance allows, was not given.
        unwritten = len(given) - len(given.rstrip(bytes([FILL])))
        bench.expect(
            unwritten < _ENOUGH and not rest.strip(bytes([FILL])),
            "entropy.device.described.used-length",
            expected=f"{length} bytes written from the beginning on, and none behind them",
            observed=f"the last {unwritten} of them unwritten"
            if unwritten >= _ENOUGH
            else "others behind them written",
            shown=[Shown("the buffer's first bytes", written[:64])],
        )


@check(
    "entropy.bytes-are-fresh",
    covers=["entropy.device.operation.1", "entropy.device.described.fresh"],
    formats=BOTH,
    types=_TYPES,
)
def bytes_are_fresh(bench: "Bench") -> None:
    """What is given is neither one byte over and over, nor what was given before."""
    bench.start()
    answers = []
    for _ in range(4):
        written, length = _take(bench, 64)
        data = written[:length]
        while len(data) < _ENOUGH:
            written, length = _take(bench, 64)
            data += written[: max(length, 1)]
        bench.expect(
            len(set(data)) > 1,
            "entropy.device.operation.1",
            expected="random bytes",
            observed=f"{len(data)} bytes, each of them {data[0]:#04x}",
            shown=[Shown("the bytes", data)],
        )
        answers.append(data[:_ENOUGH])
    bench.expect(
        len(set(answers)) == len(answers),
        "entropy.device.described.fresh",
        expected="other bytes each time",
        observed="the same bytes twice",
        shown=[Shown(f"answer {number}", data) for number, data in enumerate(answers)],
    )


@check("entropy.single-bytes-differ", covers=["entropy.device.described.fresh"], formats=BOTH, types=_TYPES)
def single_bytes_differ(bench: "Bench") -> None:
    """Buffers of one byte get bytes that are not all alike, and do not repeat with a short period."""
    bench.start()
    data = bytes(_take(bench, 1)[0][0] for _ in range(3 * _ENOUGH))
    periods = [period for period in range(1, _ENOUGH + 1) if data[period:] == data[:-period]]
    bench.expect(
        not periods,
        "entropy.device.described.fresh",
        expected=f"{len(data)} random bytes",
        observed=f"bytes that repeat after {periods[:1]}",
        shown=[Shown("one byte of each buffer", data)],
    )


@check(
    "entropy.every-buffer-is-filled",
    covers=["entropy.device.described.every-buffer", "entropy.device.operation.1"],
    formats=BOTH,
    types=_TYPES,
)
def every_buffer_is_filled(bench: "Bench") -> None:
    """Buffers that are available together, some of several segments, each get bytes of their own."""
    bench.start()
    ring = bench.ring()
    sizes = (32, 100, 32, 64, 200)
    cuts = ((), (1,), (7, 20), (), (100, 101, 150))
    posted = [ring.post(Request(writable_size=size), cuts=cut) for size, cut in zip(sizes, cuts, strict=True)]
    ring.publish()
    ring.kick()
    lengths = {used.id: used.length for used in ring.wait_all(len(posted))}
    data = []
    for number, (one, size) in enumerate(zip(posted, sizes, strict=True)):
        length = lengths.get(one.head, 0)
        bench.expect(
            1 <= length <= size,
            "entropy.device.operation.1",
            expected=f"buffer {number} given back with 1 to {size} bytes",
            observed=f"used length {length}" if one.head in lengths else f"used buffers {sorted(lengths)}",
        )
        data.append(ring.written(one)[: min(length, _ENOUGH)])
    alike = [number for number, (one, two) in enumerate(pairwise(sorted(data))) if one == two and len(one) == _ENOUGH]
    bench.expect(
        not alike and all(part.strip(bytes([FILL])) for part in data if len(part) == _ENOUGH),
        "entropy.device.described.every-buffer",
        expected="bytes of its own in each buffer",
        observed="two buffers with the same bytes" if alike else "a buffer that was not written",
        shown=[Shown(f"buffer {number}", part) for number, part in enumerate(data)],
    )


@check(
    "entropy-hostile.no-room",
    covers=["hostile.device.alive", "hostile.device.memory"],
    formats=BOTH,
    types=_TYPES,
    hostile=True,
)
def no_room(bench: "Bench") -> None:
    """A buffer that the device may only read, and one with something to read before the room, do no harm."""
    for request in (Request(b"entropy", 0), Request(b"entropy", 64)):
        if bench.rings:
            bench.reconnect()
        bench.start()
        ring = bench.ring()
        ring.post(request)
        ring.publish()
        ring.kick()
        bench.survives()


@check("entropy.large-buffer", covers=["entropy.device.operation.1"], formats=BOTH, types=_TYPES)
def large_buffer(bench: "Bench") -> None:
    """A buffer of 16 MiB gets one byte at least, in time."""
    bench.start()
    _, length = _take(bench, _LARGE)
    bench.expect(
        1 <= length <= _LARGE,
        "entropy.device.operation.1",
        expected=f"a used length from 1 to {_LARGE}",
        observed=f"used length {length}",
    )
