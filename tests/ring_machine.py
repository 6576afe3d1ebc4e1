"""Driver and device, joined over one RAM, against the naive twin: any order, any wrap, both paths.

The tests of each format say how the two are made.
"""

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from models import Buffer, QueueModel
from ring_setup import MarkChecker, make_ends

from guest_agent.virtqueue import QueueFull

__all__ = ["RingMachine"]

INDIRECT_CAPACITY = 4

segment_sizes = st.lists(st.integers(0, 5000), max_size=5)
limits = st.none() | st.integers(0, 70)


class RingMachine(RuleBasedStateMachine):
    """`make` is called by a subclass's initialize rule."""

    def make(self, size, start, *, event_idx, indirect, in_order, packed):
        features = {"event_idx": event_idx, "indirect": indirect, "in_order": in_order, "packed": packed}
        self.ends = make_ends(size, indirect_capacity=INDIRECT_CAPACITY, start=start, marks=True, **features)
        self.indirect = indirect
        self.model = QueueModel(size, event_idx, start, packed, in_order)
        self.marks = MarkChecker(self.ends)
        self.token = 0
        self.heads = {}

    @property
    def driver(self):
        return self.ends.driver

    @property
    def device(self):
        return self.ends.device

    # The driver

    @rule(readable=segment_sizes, writable=segment_sizes, indirect=st.sampled_from([None, True, False]))
    def add(self, readable, writable, indirect):
        self.token += 1
        segments = [(0x1000 * index + size % 77, size) for index, size in enumerate(readable + writable)]
        readable, writable = segments[: len(readable)], segments[len(readable) :]
        count = len(segments)
        table_exists = self.indirect and count <= INDIRECT_CAPACITY
        if not 0 < count <= self.model.size or (indirect and not table_exists):
            with pytest.raises(ValueError, match=r"segment"):
                self.driver.add(readable, writable, self.token, indirect=indirect)
            return
        uses_table = indirect if indirect is not None else table_exists and count > 1
        buffer = Buffer(self.token, tuple(readable), tuple(writable), 1 if uses_table else count)
        if not self.model.add(buffer):
            with pytest.raises(QueueFull):
                self.driver.add(readable, writable, self.token, indirect=indirect)
            return
        head = self.driver.add(readable, writable, self.token, indirect=indirect)
        assert head not in self.heads.values()
        self.heads[self.token] = head

    @rule(sizes=st.lists(st.integers(0, 9000), max_size=70), writable=st.booleans())
    def add_batch(self, sizes, writable):
        tokens = range(self.token + 1, self.token + 1 + len(sizes))
        self.token += len(sizes)
        segments = [(0x1000 * (index % 200) + size % 77, size) for index, size in enumerate(sizes)]
        buffers = [
            Buffer(token, () if writable else (segment,), (segment,) if writable else (), 1)
            for token, segment in zip(tokens, segments, strict=True)
        ]
        expected = sum([self.model.add(buffer) for buffer in buffers])
        addresses, lengths = np.array(segments, np.uint64).reshape(-1, 2).T
        added = self.driver.add_batch(addresses, lengths, writable=writable, tokens=np.array(tokens, np.uint64))
        assert added == expected

    @rule()
    def publish(self):
        self.model.publish()
        self.driver.publish()

    @rule()
    def ask_whether_to_kick(self):
        assert self.driver.should_kick() == self.model.kicks.should_tell()

    @rule()
    def collect(self):
        self.compare_collected([self.driver.collect()], [self.model.collect()])

    @rule(limit=limits)
    def collect_batch(self, limit):
        batch = self.driver.collect_batch(limit)
        assert len(batch.tokens) == len(batch.written_sizes) == len(batch.heads)
        count = len(self.model.used) if limit is None else min(limit, len(self.model.used))
        expected = [self.model.collect() for _ in range(count)]
        self.compare_collected(zip(*[column.tolist() for column in batch], strict=True), expected)

    def compare_collected(self, got, expected):
        for used, twin in zip(got, expected, strict=True):
            assert (used is None) == (twin is None)
            if used is not None:
                token, written_size, head = used
                buffer, twin_size = twin
                assert (token, written_size) == (buffer.token, twin_size)
                assert self.heads.pop(token) == head

    @rule(enabled=st.booleans())
    def switch_calls(self, enabled):
        if enabled:
            self.model.calls.enable(self.model.collected)
            assert self.driver.enable_calls() == bool(self.model.used)
        else:
            self.model.calls.disable(self.model.collected)
            self.driver.disable_calls()

    @rule()
    def attach_a_new_driver(self):
        self.ends.reopen_driver()

    # The device

    @rule()
    def pop(self):
        chain = self.device.pop()
        self.compare_popped([] if chain is None else [chain], min(1, len(self.model.available)))

    @rule(limit=limits)
    def pop_batch(self, limit):
        batch = self.device.pop_batch(limit)
        available = len(self.model.available)
        self.compare_popped(list(batch), available if limit is None else min(limit, available))

    def compare_popped(self, chains, count):
        assert len(chains) == count
        for chain in chains:
            buffer = self.model.pop()
            assert (chain.readable, chain.writable) == (buffer.readable, buffer.writable)
            assert self.heads.setdefault(buffer.token, chain.head) == chain.head
            self.model.held[chain.head] = buffer

    @precondition(lambda self: self.model.held)
    @rule(data=st.data())
    def push(self, data):
        heads = list(self.model.held)
        head = heads[0] if self.model.in_order else data.draw(st.sampled_from(heads))
        limit = self.model.held[head].writable_size
        size = data.draw(st.integers(0, limit) | st.just(limit))
        self.device.push(head, size)
        self.model.push(head, size)

    @rule(seed=st.randoms(use_true_random=False), data=st.data())
    def push_batch(self, seed, data):
        heads = list(self.model.held)
        if not self.model.in_order:
            seed.shuffle(heads)
        heads = heads[: data.draw(st.integers(0, len(heads)))]
        sizes = [self.model.held[head].writable_size for head in heads]
        sizes = [seed.choice([0, size, size, size, seed.randint(0, size)]) for size in sizes]
        self.device.push_batch(np.array(heads, np.int64), np.array(sizes, np.int64))
        for head, size in zip(heads, sizes, strict=True):
            self.model.push(head, size)

    @rule()
    def ask_whether_to_call(self):
        assert self.device.should_call() == self.model.calls.should_tell()

    @rule(enabled=st.booleans())
    def switch_kicks(self, enabled):
        if enabled:
            self.model.kicks.enable(self.model.popped)
            assert self.device.enable_kicks() == bool(self.model.available)
        else:
            self.model.kicks.disable(self.model.popped)
            self.device.disable_kicks()

    @rule()
    def move_the_device(self):
        self.ends.reopen_device()

    # Always

    @invariant()
    def counts_agree(self):
        assert self.driver.free_count == self.model.free
        assert self.driver.has_used() == bool(self.model.used)
        assert self.device.has_available() == bool(self.model.available)

    @invariant()
    def every_store_is_marked(self):
        self.marks.check()

    def teardown(self):
        if not hasattr(self, "model"):
            return
        self.publish()
        self.pop_batch(None)
        heads = np.array(list(self.model.held), np.int64)
        self.device.push_batch(heads, np.zeros(len(heads), np.int64))
        for head in heads.tolist():
            self.model.push(head, 0)
        self.collect_batch(None)
        assert self.driver.free_count == self.model.size
        assert not self.heads
