"""Games with the driver of a balloon: its size, its statistics, and what the device leaves in pages that it gets."""

from collections.abc import Sequence

from spec.balloon import BalloonFeature, BalloonQueue, queue_numbers
from spec.device import feature_mask
from vdev.check.driver.game import Game, Stage, game
from vdev.check.driver.judged_queue import JudgedQueue, Spent
from vdev.check.driver.observation import ChainMadeAvailable, Observation
from vdev.check.driver.raw_chain import RawChain
from vdev.check.verdict import Inconclusive, Judgement
from vdev.devices.balloon import BalloonDevice
from vdev.errors import GuestAddressError
from vdev.memory import PAGE_SIZE

__all__ = ["BalloonGame"]

_ALL_PAGES = 0xFFFF_FFFF
_FRAME_SIZE = 4


class BalloonGame(Game):
    """A game with a balloon, and the chains that the driver made available by queue and head."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        assert isinstance(stage.device, BalloonDevice)
        self.balloon = stage.device
        self.chains: dict[tuple[int, int], RawChain] = {}

    def see(self, seen: Observation) -> None:
        """Keep what is made available."""
        if isinstance(seen, ChainMadeAvailable):
            self.chains[seen.number, seen.chain.head] = seen.chain

    def number_of(self, role: BalloonQueue) -> int | None:
        """Return the number of a queue, None if it does not exist."""
        number = queue_numbers(self.stage.picture.features or 0, self.balloon.numbering).get(role)
        return number if number in self.stage.queues else None

    @property
    def a_modest_size(self) -> int:
        """Some number of pages that every guest can spare."""
        return self.stage.random.randrange(1, self.balloon.memory.size // PAGE_SIZE // 16)


@game("balloon-sizes", types=["balloon"])
class Sizes(BalloonGame):
    """The device asks for one size of the balloon after the other, also for none, for one page, and for all there are,
    and does not wait until the driver has come to any. The last is one that it can have.
    """

    aim = "sizes were asked for, and the last was reached"
    enough = 40
    stirs = False

    def begin(self) -> None:
        """Ask for nothing."""
        self._last: int | None = None

    @property
    def progress(self) -> int:
        """Sizes that were asked for, and at the end whether the driver got there."""
        return self.acted + (self._last is not None and self.balloon.actual == self._last)

    def turn(self) -> None:
        """Ask for another size."""
        if not self.balloon.running or self._last is not None:
            return
        if self.acted == self.enough - 1:
            self._last = self.a_modest_size
            self.balloon.set_target(self._last)
            return
        self.acted += 1
        modest = self.a_modest_size
        self.balloon.set_target(self.stage.random.choice((0, 1, modest, modest, modest + 1, _ALL_PAGES)))


@game("balloon-slow", types=["balloon"])
class Slow(BalloonGame):
    """The device keeps requests to inflate and to deflate for several turns, asks for other sizes meanwhile, and gives
    back an old request only then.
    """

    aim = "requests of the balloon were given back"
    enough = 12
    stirs = False
    _TURNS = 8

    def begin(self) -> None:
        """Count turns, and what goes back."""
        self._turns = 0
        self._released = 0

    @property
    def progress(self) -> int:
        """Requests that went back."""
        return self._released

    def give_back(self, queue: JudgedQueue, spent: Sequence[Spent]) -> None:
        """Keep what is about the balloon's size."""
        if queue.number in (self.number_of(BalloonQueue.INFLATE), self.number_of(BalloonQueue.DEFLATE)):
            self.acted += len(spent)
            queue.hold(spent)
        else:
            queue.release(spent)

    def turn(self) -> None:
        """Change the size now and then, and sometimes let go."""
        self._turns += 1
        device = self.balloon
        held = [queue for queue in self.stage.queues.values() if queue.held]
        is_due = self._turns % self._TURNS == self._TURNS // 2 if held else device.actual == device.config["num_pages"]
        if device.running and is_due:
            device.set_target(self.stage.random.choice((0, self.a_modest_size)))
        for queue in held if self._turns % self._TURNS == 0 else ():
            self._released += queue.release_held()
            self.stage.call_driver(queue.number)


@game("balloon-statistics", types=["balloon"], features=[BalloonFeature.STATS_VQ])
class Statistics(BalloonGame):
    """The device asks for statistics at once when it has got some, then not for a while, and interrupts for the queue
    without having used its buffer.
    """

    aim = "statistics were asked for"
    enough = 12
    stirs = False

    def begin(self) -> None:
        """Count turns."""
        self._turns = 0

    @property
    def progress(self) -> int:
        """Requests so far."""
        return self.acted

    def turn(self) -> None:
        """Ask, wait, or interrupt for nothing."""
        self._turns += 1
        number = self.number_of(BalloonQueue.STATISTICS)
        if number is None or not self.balloon.running:
            return
        if self._turns % 7 < 4:
            self.acted += self.balloon.request_statistics()
        elif self._turns % 7 == 5:
            self.stage.interrupt(number)


class _Scribbling(BalloonGame):
    """Writes rubbish over what a request names before it goes back."""

    queue: BalloonQueue

    @property
    def progress(self) -> int:
        """Requests whose memory was written."""
        return self.acted

    def give_back(self, queue: JudgedQueue, spent: Sequence[Spent]) -> None:
        """Write, and give back."""
        if queue.number == self.number_of(self.queue):
            for head, _ in spent:
                chain = self.chains.get((queue.number, head))
                if chain is not None and self._scribble(queue, chain):
                    self.acted += 1
        queue.release(spent)

    def _scribble(self, queue: JudgedQueue, chain: RawChain) -> bool:
        try:
            pieces = [(address, self.stage.random.randbytes(PAGE_SIZE)) for address in self.pages(chain)]
            queue.write(self.stage.device.memory, pieces)
        except GuestAddressError:
            return False  # rules have seen it
        return bool(pieces)

    def pages(self, chain: RawChain) -> list[int]:
        """Return which pages to write over: one at each end of every block."""
        return [
            each.address + at
            for each in chain.segments
            if each.is_writable and each.size >= PAGE_SIZE
            for at in sorted({0, each.size - PAGE_SIZE})
        ]


@game("balloon-scribbles", types=["balloon"], features=[BalloonFeature.MUST_TELL_HOST])
class ScribblesBalloon(_Scribbling):
    """The device writes rubbish into the pages that it is given, before it acknowledges them."""

    aim = "requests to inflate were acknowledged"
    queue = BalloonQueue.INFLATE
    enough = 4
    stirs = False
    _TURNS = 6

    def begin(self) -> None:
        """Count turns."""
        self._turns_there = 0

    def turn(self) -> None:
        """Have the balloon filled and emptied in turn, and let the driver rest in between."""
        if self.balloon.running and self.balloon.actual == self.balloon.config["num_pages"]:
            self._turns_there += 1
            if self._turns_there % self._TURNS == 0:
                self.balloon.set_target(0 if self.balloon.actual else self.a_modest_size)

    def pages(self, chain: RawChain) -> list[int]:
        """The pages that are named."""
        memory = self.stage.device.memory
        data = b"".join(memory.read(each.address, each.size) for each in chain.segments if not each.is_writable)
        frames = [int.from_bytes(data[at : at + _FRAME_SIZE], "little") for at in range(0, len(data), _FRAME_SIZE)]
        return [frame * PAGE_SIZE for frame in frames[:32]]


@game(
    "balloon-scribbles-reported",
    covers=["balloon.driver.reporting.1"],
    types=["balloon"],
    features=[BalloonFeature.PAGE_REPORTING],
)
class ScribblesReported(_Scribbling):
    """The device keeps reports for a while, and writes rubbish into the pages before it acknowledges them."""

    aim = "reports were acknowledged"
    queue = BalloonQueue.REPORTING
    enough = 1
    stirs = False
    _TURNS = 32

    def pages(self, chain: RawChain) -> list[int]:
        """Nothing where pages are to hold a pattern."""
        return [] if self.stage.picture.has(BalloonFeature.PAGE_POISON) else super().pages(chain)

    def begin(self) -> None:
        """Count turns."""
        self._turns = 0
        self._answered = 0

    @property
    def progress(self) -> int:
        """Reports that were acknowledged a turn ago: the driver can have seen what became of its pages."""
        return self._answered

    def give_back(self, queue: JudgedQueue, spent: Sequence[Spent]) -> None:
        """Keep reports."""
        if queue.number == self.number_of(self.queue):
            queue.hold(spent)
        else:
            queue.release(spent)

    def turn(self) -> None:
        """Let go of reports. Have pages become free now and then, and give the guest time to report them."""
        self._turns += 1
        self._answered = self.acted
        for queue in self.stage.queues.values():
            if queue.held:
                super().give_back(queue, queue.take_held())
                self.stage.call_driver(queue.number)
        if self._turns % self._TURNS:
            return
        if self.balloon.running and self.balloon.actual == self.balloon.config["num_pages"]:
            large = self.balloon.memory.size // PAGE_SIZE // 8
            self.balloon.set_target(0 if self.balloon.actual else large)

    def overdue(self, patience: float) -> Judgement:
        """A driver reports when it likes, but must not give up."""
        if self.refused:
            return super().overdue(patience)
        return Inconclusive(f"the driver reported no pages for {patience:g} s")


@game("balloon-keeps", types=["balloon"], needs_start=True)
class Keeps(BalloonGame):
    """The driver must not take pages back when its guest is short of memory: DEFLATE_ON_OOM is not offered. The device
    asks for several sizes, and gives the driver time to come to each.
    """

    aim = "sizes were reached"
    enough = 6
    stirs = False
    _TURNS = 6

    @classmethod
    def offers(cls, offered: int) -> int:
        """All but DEFLATE_ON_OOM."""
        return offered & ~feature_mask(BalloonFeature.DEFLATE_ON_OOM)

    @property
    def progress(self) -> int:
        """Sizes that were reached."""
        return self.acted

    def begin(self) -> None:
        """Begin with none."""
        self._wanted = 0
        self._turns_there = 0

    def turn(self) -> None:
        """Ask for the next when the driver has been there for a while."""
        if not self.balloon.running or self.balloon.actual != self._wanted:
            return
        self._turns_there += 1
        if self._turns_there < self._TURNS:
            return
        self._turns_there = 0
        self.acted += bool(self._wanted)
        larger = self._wanted + self.a_modest_size
        self._wanted = self._wanted // 2 if self.acted % 2 and self._wanted > 1 else larger
        self.balloon.set_target(self._wanted)
