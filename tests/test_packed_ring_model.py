"""The packed ring against the naive twin: odd sizes, any start in both laps, EVENT_IDX, INDIRECT_DESC, IN_ORDER."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize
from ring_machine import RingMachine

from spec.packed_ring import position


class PackedRing(RingMachine):
    @initialize(
        size=st.sampled_from([1, 2, 3, 7, 16, 64, 100]) | st.integers(1, 100),
        event_idx=st.booleans(),
        indirect=st.booleans(),
        in_order=st.booleans(),
        data=st.data(),
    )
    def make_packed(self, size, data, **features):
        start = data.draw(st.just(0) | st.integers(0, 2 * size - 1))
        self.make(size, position(start, size), packed=True, **features)


TestPackedRing = PackedRing.TestCase
TestPackedRing.settings = settings(stateful_step_count=60)
