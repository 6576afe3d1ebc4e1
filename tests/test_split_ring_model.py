"""The split ring against the naive twin: every size, any start of the indices, EVENT_IDX, INDIRECT_DESC, IN_ORDER."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize
from ring_machine import RingMachine


class SplitRing(RingMachine):
    @initialize(
        order=st.integers(0, 6),
        event_idx=st.booleans(),
        indirect=st.booleans(),
        in_order=st.booleans(),
        start=st.sampled_from([0, 65500, 65530, 65535]) | st.integers(0, 65535),
    )
    def make_split(self, order, start, **features):
        self.make(1 << order, start, packed=False, **features)


TestSplitRing = SplitRing.TestCase
TestSplitRing.settings = settings(stateful_step_count=60)
