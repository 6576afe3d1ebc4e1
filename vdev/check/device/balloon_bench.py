"""A balloon in the hands of a check: its queues by what they are for, pages of the guest, and what the host does."""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from spec.balloon import CONFIG, PAGE_FRAME_SIZE, BalloonFeature, BalloonQueue, QueueNumbering, queue_numbers
from spec.layout import offset_of
from vdev.check.bench.request import Request
from vdev.check.bench.ring import Segment, Used
from vdev.check.bench.traffic_balloon import frames
from vdev.check.evidence import Shown
from vdev.check.verdict import Failed
from vdev.devices.kind import Carrier

if TYPE_CHECKING:
    from vdev.check.bench.bench import Bench

__all__ = ["BALLOON", "Balloon"]

BALLOON = ("balloon",)
"""The types of all checks of balloons."""

_SIZE = 64
_WITH_QUEUES = (BalloonFeature.STATS_VQ, BalloonFeature.FREE_PAGE_HINT, BalloonFeature.PAGE_REPORTING)
_PAUSE = 0.002


class Balloon:
    """The balloon of a bench that was started with `features` and those that have a queue before theirs, if offered.

    So the numbers of the queues are mostly the same in both numberings. Where they are not, and the carrier tells
    which queues there are, that decides; else they are compact, as those of most drivers.
    """

    def __init__(self, bench: "Bench", *features: BalloonFeature, drive: bool = True) -> None:
        self.bench = bench
        last = max((_WITH_QUEUES.index(feature) for feature in features if feature in _WITH_QUEUES), default=-1)
        before = [feature for feature in _WITH_QUEUES[:last] if bench.offers(feature)]
        bench.start(features=[*features, *before], queues={}, drive=False)
        self.numbers = self._find_numbers()
        for number in self.numbers.values():
            bench.set_up(number, min(_SIZE, bench.control.queue_size_max(number) or _SIZE))
        if drive:
            self.drive()

    def drive(self) -> None:
        """Set DRIVER_OK, if the constructor was not to."""
        self.bench.drive()

    def _find_numbers(self) -> dict[BalloonQueue, int]:
        fixed, compact = (queue_numbers(self.bench.features, how) for how in QueueNumbering)
        sizes = [self.bench.control.queue_size_max(number) for number in fixed.values()]
        return fixed if None not in sizes and all(sizes) else compact

    # Pages of the guest

    def pages(self, count: int, content: bytes = b"") -> list[int]:
        """Return the addresses of `count` pages that follow each other, full of `content` over and over."""
        buffer = self.bench.memory.allocate(
            count * PAGE_FRAME_SIZE, align=PAGE_FRAME_SIZE, what=f"{count} pages for the balloon"
        )
        addresses = list(range(buffer.address, buffer.address + buffer.size, PAGE_FRAME_SIZE))
        if content:
            for address in addresses:
                self.fill(address, content)
        return addresses

    def fill(self, address: int, content: bytes) -> None:
        """Fill one page with `content` over and over."""
        self.bench.memory.write(address, (content * -(-PAGE_FRAME_SIZE // len(content)))[:PAGE_FRAME_SIZE])

    def expect_content(self, addresses: Iterable[int], content: bytes, statement: str, *, when: str) -> None:
        """Expect pages to be full of `content`."""
        wanted = (content * -(-PAGE_FRAME_SIZE // len(content)))[:PAGE_FRAME_SIZE]
        for address in addresses:
            found = self.bench.memory.read(address, PAGE_FRAME_SIZE)
            if found != wanted:
                place = next(at for at in range(PAGE_FRAME_SIZE) if found[at] != wanted[at])
                begin = place & ~15
                self.bench.fail(
                    statement,
                    expected=f"the page at {address:#x} as the driver left it, {when}",
                    observed=f"another byte at {place}: {found[place]:#04x}, not {wanted[place]:#04x}",
                    shown=[Shown("the page from there on", found[begin : begin + 64], address + begin)],
                )

    # Requests

    def send(self, queue: BalloonQueue, readable: bytes = b"", *, writable: Sequence[int] = ()) -> Used:
        """Give the device a buffer, and wait for it: bytes to read, or pages that it may write, by address."""
        return self.send_segments(queue, Request(readable), [Segment(page, PAGE_FRAME_SIZE, True) for page in writable])

    def send_segments(self, queue: BalloonQueue, request: Request, segments: Sequence[Segment]) -> Used:
        """Give the device `segments`, or a request if there are none, and wait for it."""
        ring = self.bench.ring(self.numbers[queue])
        posted = ring.post(segments=segments) if segments else ring.post(request)
        ring.publish()
        ring.kick()
        used = ring.wait_used()
        if not segments:
            ring.release(posted)
        return used

    def give(self, queue: BalloonQueue, readable: bytes) -> None:
        """Give the device a buffer that it may keep."""
        ring = self.bench.ring(self.numbers[queue])
        ring.post(Request(readable, answers=False))
        ring.publish()
        ring.kick()

    def inflate(self, pages: Sequence[int]) -> Used:
        """Put pages into the balloon."""
        return self.send(BalloonQueue.INFLATE, frames(pages))

    def deflate(self, pages: Sequence[int]) -> Used:
        """Take pages out of the balloon."""
        return self.send(BalloonQueue.DEFLATE, frames(pages))

    def expect_nothing_written(self, used: Used, what: str) -> None:
        """Expect that a buffer came back with length 0."""
        self.bench.expect(
            used.length == 0,
            "balloon.device.described.nothing-written",
            expected=f"used length 0 for {what}",
            observed=f"used length {used.length}",
        )

    def has_done_with(self) -> None:
        """Return when the device does nothing more on its own: two later requests are answered, and all rings stop."""
        pages = self.pages(1)
        self.inflate(pages)
        self.deflate(pages)
        for number in self.numbers.values():
            self.bench.ring(number).stop()

    # Configuration and host

    def field(self, name: str) -> int:
        """Return a field of the configuration space."""
        return int.from_bytes(self.bench.control.read_config(offset_of(CONFIG, name), 4), "little")

    def write_field(self, name: str, value: int) -> None:
        """Write a field of the configuration space."""
        self.bench.done(f"write {value:#x} to {name}")
        self.bench.control.write_config(offset_of(CONFIG, name), value.to_bytes(4, "little"))

    def wait_field(self, name: str, is_right: Callable[[int], bool], statement: str, *, expected: str) -> int:
        """Wait until a field is as it should be, and return it."""
        return int(self._wait(lambda: self.field(name), is_right, statement, expected=f"{name} {expected}"))

    def wait_figure(self, name: str, is_right: Callable[[Any], bool], statement: str, *, expected: str) -> Any:
        """Wait until what the host knows is as it should be, and return it."""
        return self._wait(lambda: self.bench.host("figures")[name], is_right, statement, expected=expected)

    def settles(self, name: str, value: int) -> None:
        """Wait until a field has a value; INCONCLUSIVE if it never has: another check is for that."""
        with suppress(Failed):
            self.wait_field(name, value.__eq__, "balloon.device.described.command-id", expected=str(value))
            return
        self.bench.inconclusive(f"{name} is {self.field(name):#x}, not {value:#x}")

    def _wait(self, look: Callable[[], Any], is_right: Callable[[Any], bool], statement: str, *, expected: str) -> Any:
        patience = self.bench.target.patience if self.bench.carrier is Carrier.VHOST_USER else 0.0
        limit = time.monotonic() + patience
        while not is_right(value := look()):
            if time.monotonic() > limit:
                self.bench.fail(
                    statement,
                    expected=f"{expected}, within {patience:g} s",
                    observed=f"{value:#x}" if isinstance(value, int) else str(value),
                )
            time.sleep(_PAUSE)
        return value
