"""Entropy devices with one small fault each."""

import os

from check_mutants import Mutant

from vdev.check.verdict import Verdict
from vdev.devices.entropy import EntropyDevice
from vdev.errors import DriverViolation

FIXED = bytes(range(7, 71))
MOST = 4096


class Served(EntropyDevice):
    """It fills each buffer in turn with ``data_for`` its size, and tells ``told``."""

    def handle_queue(self, number):
        for chain in self.chains(number):
            self.look_at(chain)
            written = chain.write(self.memory, self.data_for(min(chain.writable_size, MOST)))
            self.queues[number].push(chain.head, self.told(written))

    def look_at(self, chain):
        if chain.readable or not chain.writable_size:
            raise DriverViolation("Entropy Device / Device Operation", "nothing to fill")

    def data_for(self, size):
        return os.urandom(size)

    def told(self, written):
        return written


class NothingToTell(Served):
    def told(self, written):
        return 0 if written == 63 else written


class HalfOfIt(Served):
    def data_for(self, size):
        return os.urandom(size // 2 if size == MOST else size)

    def told(self, written):
        return MOST if written == MOST // 2 else written


class SameAgain(Served):
    def data_for(self, size):
        return FIXED if size == len(FIXED) else os.urandom(size)


class OneByte(Served):
    def data_for(self, size):
        return b"\x5a" if size == 1 else os.urandom(size)


class FirstOfMany(EntropyDevice):
    """All buffers that are available together get the bytes of the first."""

    def handle_queue(self, number):
        data = os.urandom(MOST)
        for chain in self.chains(number):
            self.queues[number].push(chain.head, chain.write(self.memory, data[: chain.writable_size]))


class NeverReads(Served):
    def look_at(self, chain):
        assert not chain.readable_size
        super().look_at(chain)


class NeverLarge(Served):
    def look_at(self, chain):
        super().look_at(chain)
        assert chain.writable_size < 1 << 24


MUTANTS = [
    Mutant("nothing-told", "entropy", {"entropy.gives-at-least-one-byte"}, make=NothingToTell),
    Mutant("half-of-it", "entropy", {"entropy.length-is-what-was-written"}, make=HalfOfIt),
    Mutant("same-again", "entropy", {"entropy.bytes-are-fresh"}, make=SameAgain),
    Mutant("one-byte", "entropy", {"entropy.single-bytes-differ"}, make=OneByte),
    Mutant("first-of-many", "entropy", {"entropy.every-buffer-is-filled"}, make=FirstOfMany),
    Mutant(
        "never-reads",
        "entropy",
        {"entropy-hostile.no-room"},
        make=NeverReads,
        verdict=Verdict.CRASHED,
        also={"hostile.elements-without-request", "hostile.table-within-a-table"},
    ),
    Mutant("never-large", "entropy", {"entropy.large-buffer"}, make=NeverLarge, verdict=Verdict.CRASHED),
]
