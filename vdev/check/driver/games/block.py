"""Games with the driver of a disk."""

from collections.abc import Sequence
from typing import ClassVar

from spec.block import BlockFeature, RequestStatus
from spec.device import feature_mask
from vdev.check.driver.game import Game, Stage, game
from vdev.check.driver.judged_queue import JudgedQueue, Spent
from vdev.check.driver.observation import ChainMadeAvailable, Observation
from vdev.check.driver.raw_chain import RawChain

__all__: list[str] = []

_TYPES = ("block",)


@game("block-errors", types=_TYPES)
class Errors(Game):
    """Every third request is answered with IOERR or UNSUPP, whatever it was."""

    aim = "requests were answered with an error"
    enough = 6

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._chains: dict[tuple[int, int], RawChain] = {}
        self._count = 0

    @property
    def progress(self) -> int:
        """Requests that failed."""
        return self.acted

    def see(self, seen: Observation) -> None:
        """Keep what is made available."""
        if isinstance(seen, ChainMadeAvailable):
            self._chains[seen.number, seen.chain.head] = seen.chain

    def give_back(self, queue: JudgedQueue, spent: Sequence[Spent]) -> None:
        """Overwrite the status of some."""
        answers = []
        for head, written_size in spent:
            self._count += 1
            chain = self._chains.pop((queue.number, head), None)
            writable = [each for each in chain.segments if each.is_writable and each.size] if chain is not None else []
            if self._count % 3 == 0 and writable:
                self.acted += 1
                status = RequestStatus.IOERR if self._count % 2 else RequestStatus.UNSUPP
                self.stage.device.memory.write(writable[-1].address + writable[-1].size - 1, bytes([status]))
                answers.append((head, 1))
            else:
                answers.append((head, written_size))
        queue.release(answers)


@game("block-resizes", types=_TYPES)
class Resizes(Game):
    """The disk becomes smaller and larger again, and says so each time, while the driver is at work."""

    aim = "requests came while the disk changed its size"
    enough = 12

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self._sectors = int(stage.device.config["capacity"])
        self._turns = 0

    def turn(self) -> None:
        """Change the size now and then."""
        self._turns += 1
        if self.stage.device.running and self._turns % 4 == 1:
            self.acted += 1
            sectors = self._sectors - self.stage.random.choice((0, 8, 1024, self._sectors // 2))
            self.stage.device.change_config(capacity=sectors)

    def end(self) -> None:
        """It has its own size again."""
        super().end()
        self.stage.device.change_config(capacity=self._sectors)


class _OtherDisk(Game):
    """A disk that is not as others are, from the driver's start on."""

    def begin(self) -> None:
        """What it is is what this is about."""
        self.acted += 1


class _Limited(_OtherDisk):
    """A disk that says other things of itself."""

    config: ClassVar[dict[str, int]] = {}

    def before_config_read(self, offset: int) -> None:
        """The device's own values come back with each reset."""
        device = self.stage.device
        if any(device.config[field] != value for field, value in self.config.items()):
            for field, value in self.config.items():
                device.config[field] = value


@game("block-small-limits", types=_TYPES, needs_start=True)
class SmallLimits(_Limited):
    """The disk takes two segments of data of 4 KiB in a request, and one range of 64 sectors in a discard, a write
    zeroes or a secure erase.
    """

    enough = 24
    config: ClassVar[dict[str, int]] = {
        "size_max": 4096,
        "seg_max": 2,
        "max_discard_sectors": 64,
        "max_discard_seg": 1,
        "max_write_zeroes_sectors": 64,
        "max_write_zeroes_seg": 1,
        "max_secure_erase_sectors": 64,
        "max_secure_erase_seg": 1,
        "secure_erase_sector_alignment": 8,
    }

    @classmethod
    def offers(cls, offered: int) -> int:
        """A disk that can erase has to say so; it answers that it does not."""
        return offered | feature_mask(BlockFeature.SECURE_ERASE)


@game("block-read-only", types=_TYPES, needs_start=True)
class ReadOnly(_OtherDisk):
    """The disk is read-only."""

    @classmethod
    def offers(cls, offered: int) -> int:
        """RO, and nothing that would change the disk."""
        writing = feature_mask(BlockFeature.DISCARD, BlockFeature.WRITE_ZEROES, BlockFeature.SECURE_ERASE)
        return offered & ~writing | feature_mask(BlockFeature.RO)


@game("block-always-caches", types=_TYPES, needs_start=True)
class AlwaysCaches(_OtherDisk):
    """The disk caches writes and has no switch for that: FLUSH is offered, CONFIG_WCE is not."""

    enough = 16

    @classmethod
    def offers(cls, offered: int) -> int:
        """FLUSH alone."""
        return offered & ~feature_mask(BlockFeature.CONFIG_WCE)


@game("block-never-caches", types=_TYPES, needs_start=True)
class NeverCaches(_OtherDisk):
    """The disk does not cache writes: neither FLUSH nor CONFIG_WCE is offered."""

    enough = 16

    @classmethod
    def offers(cls, offered: int) -> int:
        """Neither."""
        return offered & ~feature_mask(BlockFeature.CONFIG_WCE, BlockFeature.FLUSH)
