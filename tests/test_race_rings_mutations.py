"""The ring lab finds what it is for: each fence that is left out, each order that is turned round."""

import pytest
from race_rings_mutants import FENCE, moved, put

from guest_agent.virtqueue.packed import PackedDriverQueue
from guest_agent.virtqueue.packed_descriptors import PackedDescriptors
from guest_agent.virtqueue.split import SplitDriverQueue
from guest_agent.virtqueue.split_used import SplitUsed
from vdev.errors import UserError
from vdev.race.rings import RingScenario, replay, ring_schedule_of, sample, search
from vdev.virtqueue.packed import PackedDeviceQueue
from vdev.virtqueue.packed_ring import PackedRing
from vdev.virtqueue.split import SplitDeviceQueue

ARMED = {"driver": "armed", "device": "until-empty"}
BATCHES = {"batches": True, **ARMED}
THREE = {"buffers": 3}
"""A packed ring asks for every notification until an event was stored once."""

# Which fence, and who must be using the ring how for it to matter.
FENCES = {
    "split driver, publish to should_kick": (SplitDriverQueue, "should_kick", (True, False), {}, "lost kick"),
    "split driver, enable_calls": (SplitDriverQueue, "enable_calls", (True, False), {}, "lost call"),
    "split driver, collect with calls on": (SplitDriverQueue, "_arm_calls", (True,), ARMED, "lost call"),
    "split driver, collect_batch": (SplitDriverQueue, "_arm_calls", (True,), BATCHES, "lost call"),
    "split device, push to should_call": (SplitDeviceQueue, "should_call", (True, False), {}, "lost call"),
    "split device, enable_kicks": (SplitDeviceQueue, "enable_kicks", (True, False), {}, "lost kick"),
    "split device, pop with kicks on": (SplitDeviceQueue, "pop", (True,), ARMED, "lost kick"),
    "split device, pop_batch": (SplitDeviceQueue, "_pending_count_and_arm", (True,), BATCHES, "lost kick"),
    "packed driver, publish to should_kick": (PackedDriverQueue, "should_kick", (True, False), {}, "lost kick"),
    "packed driver, enable_calls by flags": (PackedDriverQueue, "enable_calls", (False,), {}, "lost call"),
    "packed driver, enable_calls by event": (PackedDriverQueue, "_arm_calls", (True,), {}, "lost call"),
    "packed driver, collect with calls on": (PackedDriverQueue, "_arm_calls", (True,), ARMED | THREE, "lost call"),
    "packed driver, collect_batch": (PackedDriverQueue, "_arm_calls", (True,), BATCHES | THREE, "lost call"),
    "packed device, push to should_call": (PackedDeviceQueue, "should_call", (True, False), {}, "lost call"),
    "packed device, enable_kicks": (PackedDeviceQueue, "enable_kicks", (True, False), {}, "lost kick"),
    "packed device, pop with kicks on": (PackedDeviceQueue, "_arm", (True,), ARMED | THREE, "lost kick"),
    "packed device, pop_batch": (PackedDeviceQueue, "_arm", (True,), BATCHES | THREE, "lost kick"),
}


def format_of(owner):
    return "packed" if "Packed" in owner.__name__ else "split"


@pytest.mark.parametrize("fence", FENCES)
def test_a_fence_that_is_left_out_is_found_and_only_store_buffers_show_it(fence, monkeypatch, record_property):
    owner, name, event_idx, way, broken = FENCES[fence]
    put(monkeypatch, owner, name, (FENCE, "pass"))
    for each in event_idx:
        scenario = RingScenario(format_of(owner), each, **way)
        verdict = search(scenario)
        assert verdict.finding is not None, verdict.bound
        assert verdict.finding.property == broken
        record_property("steps", len(verdict.finding.steps))
        without = search(scenario, model="sc")
        assert (without.finding, without.complete) == (None, True)


# The order in which each side looks and stores

# A value is carried over in what the side has for its state: a word of the notes, the upper bits of a count.
EVENT_OR_FLAGS = "area.used[area.avail_event_word if self._event_idx else _FLAGS]"
WISH_OF_DRIVER = "self._rings.available[self._rings.used_event_word if self._event_idx else FLAGS]"
COUNTED = "self._unsignalled_count = min(self._unsignalled_count + count, "

EARLY_WISHES = {
    "split driver": (
        "lost kick",
        (SplitDriverQueue, "publish", ("store_fence()", f"notes[15] = {EVENT_OR_FLAGS}")),
        (
            SplitDriverQueue,
            "should_kick",
            ("self._area.used[self._area.avail_event_word]", "self._notes[15]"),
            ("self._area.used[_FLAGS]", "self._notes[15]"),
        ),
    ),
    "packed driver": (
        "lost kick",
        (PackedDriverQueue, "publish", ("store_fence()", "notes[15] = self._area._device_event[0]")),
        (
            PackedDriverQueue,
            "should_kick",
            ("self._area.device_event()", "(self._notes[15] & 0xFFFF, self._notes[15] >> 16)"),
        ),
    ),
    "split device": (
        "lost call",
        (
            SplitDeviceQueue,
            "_publish_used",
            ("store_fence()", f"early = {WISH_OF_DRIVER}"),
            (
                f"{COUNTED}_COUNT_LIMIT)",
                "self._unsignalled_count = (self._unsignalled_count & 0xFFFF) + count | early << 16",
            ),
        ),
        (
            SplitDeviceQueue,
            "should_call",
            (
                "count, self._unsignalled_count = self._unsignalled_count, 0",
                "count, early = self._unsignalled_count & 0xFFFF, self._unsignalled_count >> 16\n"
                "    self._unsignalled_count = 0",
            ),
            ("self._rings.available[self._rings.used_event_word]", "early"),
            ("self._rings.available[FLAGS]", "early"),
        ),
    ),
    "packed device": (
        "lost call",
        (
            PackedDeviceQueue,
            "push",
            ("self._ring.store_used(", "early = self._ring._driver_event[0]\n    self._ring.store_used("),
            (
                "self._note_used(self._outstanding.give_back(head))",
                "self._note_used(self._outstanding.give_back(head)); self._unsignalled_count |= early << 16",
            ),
        ),
        (
            PackedDeviceQueue,
            "_note_used",
            (
                f"{COUNTED}self.size)",
                "self._unsignalled_count = min((self._unsignalled_count & 0xFFFF) + count, self.size)",
            ),
        ),
        (
            PackedDeviceQueue,
            "should_call",
            (
                "count = self._unsignalled_count",
                "count, self._ring._early = self._unsignalled_count & 0xFFFF, self._unsignalled_count >> 16",
            ),
        ),
        (PackedRing, "driver_wants_call", ("self._driver_event[0]", "self._early")),
    ),
}


@pytest.mark.parametrize("event_idx", [True, False])
@pytest.mark.parametrize("side", EARLY_WISHES)
def test_the_others_wish_read_before_the_index_is_stored_is_found(side, event_idx, monkeypatch):
    broken, *mutants = EARLY_WISHES[side]
    for owner, name, *changes in mutants:
        put(monkeypatch, owner, name, *changes)
    # Here the order in the program is wrong: no store buffer is needed to see it.
    for model in ("tso", "sc"):
        verdict = search(RingScenario(side.split()[0], event_idx), model=model)
        assert verdict.finding is not None
        assert verdict.finding.property == broken


@pytest.mark.parametrize("event_idx", [True, False])
@pytest.mark.parametrize("changed", ["looks first", "does not look"])
@pytest.mark.parametrize(
    ("owner", "name", "look", "first"),
    [
        (SplitDeviceQueue, "enable_kicks", "self.has_available()", "self._kicks_enabled = True"),
        (PackedDeviceQueue, "enable_kicks", "self.has_available()", "self._kicks_enabled = True"),
        (SplitDriverQueue, "enable_calls", "self.has_used()", "self._notes[_CALLS_ENABLED] = 1"),
        (PackedDriverQueue, "enable_calls", "self.has_used()", "self._notes[PackedNote.CALLS_ENABLED] = 1"),
    ],
)
def test_a_side_that_does_not_look_again_before_it_sleeps_is_found(
    owner, name, look, first, changed, event_idx, monkeypatch
):
    if changed == "looks first":
        put(monkeypatch, owner, name, (look, "early"), (first, f"early = {look}; {first}"))
    else:
        put(monkeypatch, owner, name, (look, "False"))
    verdict = search(RingScenario(format_of(owner), event_idx))
    assert verdict.finding is not None
    assert verdict.finding.property == ("lost kick" if name == "enable_kicks" else "lost call")


INDEX = "self._area.available[_IDX] = (self._notes[_NEXT_AVAILABLE] + 1) & 0xFFFF"
PLACED = "head = self._descriptors.place(readable, writable, token, indirect)\n"
USED_INDEX = "self._rings.store_used_word(IDX, self._next_used + {} & 0xFFFF)"
STORE_ADDRESS = "        words[word] = address\n"
STORE_REST = "        words[word + 1] = size | buffer_id << 32 | flags << 48\n"
HELD_BACK = "flags = area.ring_words[_WORDS * offset + _FLAGS_WORD]"
FIRST_FLAGS = "    self._words[_WORDS * first + _FLAGS_WORD] = int(flags[0])\n"

TORN = {
    "the available index before the descriptor": (
        (SplitDriverQueue, "add", (PLACED, f"{INDEX}\n    {PLACED}")),
        [{}, {"segments": 2, "indirect": True}],
    ),
    "the available index before the ring's entry": (
        (SplitDriverQueue, "add", (PLACED, f"{PLACED}    {INDEX}\n")),
        [{}],
    ),
    "the used index before the element": (
        (
            SplitDeviceQueue,
            "push",
            ("self._outstanding.check(head)", f"self._outstanding.check(head); {USED_INDEX.format(1)}"),
        ),
        [{}, {"segments": 2}],
    ),
    "the used index before the elements of a batch": (
        (
            SplitDeviceQueue,
            "push_batch",
            ("    places = self._rings", f"    {USED_INDEX.format('count')}\n    places = self._rings"),
        ),
        [{"batches": True}, {"batches": True, "publishing": "together"}],
    ),
    "the first available flags before the chain's other descriptors": (
        (PackedDescriptors, "_store_chain", (HELD_BACK, "pass")),
        [{"segments": 2, "size": 4}],
    ),
    "available flags before the address": (
        (PackedDescriptors, "_store_chain", (HELD_BACK, "pass"), *moved(STORE_ADDRESS, STORE_REST)),
        [{}],
    ),
    "used flags before length and id": (
        (
            PackedRing,
            "store_used",
            ("    store_fence()\n", ""),
            *moved(
                "    self._lengths[_WORDS // 2 * offset + _LENGTH_WORD] = written_size\n",
                "    self._words[words + _FLAGS_WORD] = (0 if lap & 1 else _BOTH) | (_WRITE if written_size else 0)\n",
            ),
        ),
        [{}],
    ),
    "the first used flags of a batch before the lengths": (
        (PackedRing, "store_many_used", *moved('    records["len"][offsets] = written_sizes\n', FIRST_FLAGS)),
        [{"batches": True}, {"batches": True, "publishing": "together"}],
    ),
}


@pytest.mark.parametrize("fault", TORN)
def test_what_is_shown_before_it_is_whole_is_found(fault, monkeypatch):
    (owner, name, *changes), ways = TORN[fault]
    put(monkeypatch, owner, name, *changes)
    for way in ways:
        for event_idx in (True, False):
            verdict = search(RingScenario("split" if "Split" in owner.__name__ else "packed", event_idx, **way))
            assert verdict.finding is not None, verdict.bound
            # What stood there before is often a buffer that was taken already.
            assert verdict.finding.property in ("wrong buffer", "violation", "buffer twice")


def test_a_buffer_that_is_taken_twice_is_found(monkeypatch):
    put(monkeypatch, SplitDeviceQueue, "_take", ("self._next_avail = (self._next_avail + 1) & 0xFFFF", "pass"))
    finding = search(RingScenario()).finding
    assert (finding.property, finding.message) == ("buffer twice", "the device popped buffer 0 again")


def test_a_used_element_read_before_the_index_is_found(monkeypatch):
    put(
        monkeypatch,
        SplitDriverQueue,
        "collect",
        (
            "if not self._used.pending_count()",
            "word = 2 * (self._notes[_LAST_USED] & (self.size - 1))\n"
            "    self._used._area.early = [self._area.used_elements[word + part] for part in (0, 1)]\n"
            "    if not self._used.pending_count()",
        ),
    )
    put(
        monkeypatch,
        SplitUsed,
        "_entry",
        ("area.used_elements[word], area.used_elements[word + 1]", "area.early"),
    )
    verdict = search(RingScenario())
    assert verdict.finding is not None
    assert verdict.finding.property in ("wrong buffer", "violation")


# What was found can be done again, and chance finds it, too


def test_a_finding_replays_exactly_while_the_fault_is_there_and_not_without_it(monkeypatch):
    scenario = RingScenario(event_idx=False)
    with monkeypatch.context() as patch:
        put(patch, SplitDriverQueue, "should_kick", (FENCE, "pass"))
        finding = search(scenario).finding
        assert search(scenario).finding == finding
        assert replay(ring_schedule_of(finding)) == finding
    with pytest.raises(
        UserError, match=r"step \d+: 'driver: loads used.flags: 0x0' cannot be here; 'driver: fences' can"
    ):
        replay(ring_schedule_of(finding))


@pytest.mark.parametrize("mode", ["random", "pct"])
def test_chance_finds_a_fence_that_is_left_out(mode, monkeypatch):
    put(monkeypatch, SplitDriverQueue, "should_kick", (FENCE, "pass"))
    verdict = sample(RingScenario(event_idx=False, buffers=4, size=4), mode=mode, runs=20_000, seed=1)
    assert verdict.finding is not None
    assert verdict.finding.property == "lost kick"
    assert replay(ring_schedule_of(verdict.finding)) == verdict.finding
