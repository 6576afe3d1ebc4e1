"""Mutants for the checks of notifications in both directions: rings with one fault each."""

from check_mutants import Mutant, changed, entropy, replaced

from spec.packed_ring import EventFlag
from vdev.check.registry import RingFormat
from vdev.check.verdict import Verdict
from vdev.devices.entropy import EntropyDevice
from vdev.errors import DriverViolation
from vdev.virtqueue.packed import PackedDeviceQueue
from vdev.virtqueue.packed_ring import PackedRing
from vdev.virtqueue.rings import FLAGS
from vdev.virtqueue.split import SplitDeviceQueue

SPLIT, PACKED = (RingFormat.SPLIT,), (RingFormat.PACKED,)

BY_FLAGS = "return not self._rings.available[FLAGS] & _NO_INTERRUPT"
BY_EVENT = "return event_reached(self._rings.available[self._rings.used_event_word], self._next_used, count)"


def never_again_split(patch):
    """A driver that once wanted no calls gets none any more."""
    wanted = SplitDeviceQueue.should_call

    def should_call(self):
        self.is_silent = getattr(self, "is_silent", False) or bool(self._rings.available[FLAGS] & 1)
        return wanted(self) and (self._event_idx or not self.is_silent)

    patch.setattr(SplitDeviceQueue, "should_call", should_call)


def never_again_packed(patch):
    """A driver that once wanted no calls gets none any more."""
    wanted = PackedRing.driver_wants_call

    def driver_wants_call(self, place, count):
        self.is_silent = getattr(self, "is_silent", False) or self._driver_event[0] >> 16 == EventFlag.DISABLE
        return wanted(self, place, count) and not self.is_silent

    patch.setattr(PackedRing, "driver_wants_call", driver_wants_call)


def enables_with(patch, store):
    """When kicks are wanted again, ``store(queue)`` is done last."""
    for kind in (SplitDeviceQueue, PackedDeviceQueue):
        enable = kind.enable_kicks

        def enable_kicks(self, enable=enable):
            is_more = enable(self)
            store(self)
            return is_more

        patch.setattr(kind, "enable_kicks", enable_kicks)


def after_enabling(store):
    return replaced(lambda patch: enables_with(patch, store))


def flag_2(queue):
    if not queue._event_idx and queue.__class__ is SplitDeviceQueue:
        queue._rings.store_used_word(FLAGS, 2)


def flag_with_event_idx(queue):
    if queue._event_idx and queue.__class__ is SplitDeviceQueue:
        queue._rings.store_used_word(FLAGS, 1)


def desc_without_event_idx(queue):
    if not queue._event_idx and queue.__class__ is PackedDeviceQueue:
        queue._ring.store_event(EventFlag.DESC, queue._next_avail)


def no_kicks(queue):
    """Says that it needs no kicks, and does not look."""
    if not queue._event_idx and queue._next_used > 4:
        queue.disable_kicks()


def stale_event(queue):
    """Names a place for the next kick that the driver has passed."""
    if queue._event_idx and queue._next_used > 4:
        queue.disable_kicks()


class TiresOfNothing(EntropyDevice):
    """Gives up after 16 kicks in a row that brought nothing."""

    idle_count = 0

    def queue_notify(self, number):
        queue = self.queues.get(number)
        self.idle_count = 0 if queue is None or queue.has_available() else self.idle_count + 1
        if self.idle_count > 16:
            self.needs_reset(DriverViolation("Notifications", "kicks for nothing", queue=number))
        return super().queue_notify(number)


MUTANTS = [
    # Calls, split
    Mutant(
        "never-calls-again-split", "entropy", {"calls.with-flags-0"}, patch=replaced(never_again_split), formats=SPLIT
    ),
    Mutant(
        "calls-in-any-case-split",
        "entropy",
        {"calls.with-flags-1"},
        patch=changed(SplitDeviceQueue, "should_call", (BY_FLAGS, "return True")),
        formats=SPLIT,
    ),
    Mutant(
        "heeds-used-event-in-any-case",
        "entropy",
        {"calls.used-event-without-its-feature"},
        patch=changed(
            SplitDeviceQueue,
            "should_call",
            (BY_FLAGS, f"if self._rings.available[self._rings.used_event_word]: {BY_EVENT}\n    {BY_FLAGS}"),
        ),
        also={"untouched.available-ring"},
        formats=SPLIT,
    ),
    Mutant(
        "heeds-flags-in-any-case",
        "entropy",
        {"calls.flags-with-event-idx"},
        patch=changed(
            SplitDeviceQueue, "should_call", (BY_EVENT, BY_EVENT + " and not self._rings.available[FLAGS] & 1")
        ),
        formats=SPLIT,
    ),
    Mutant(
        "looks-at-the-last-element-only-split",
        "entropy",
        {"calls.at-used-event"},
        patch=changed(SplitDeviceQueue, "should_call", (BY_EVENT, BY_EVENT.replace("count)", "1)"))),
        formats=SPLIT,
    ),
    Mutant(
        "calls-for-each-with-event-idx",
        "entropy",
        {"calls.only-at-used-event"},
        patch=changed(SplitDeviceQueue, "should_call", (BY_EVENT, "return True")),
        formats=SPLIT,
    ),
    # Calls, packed
    Mutant(
        "never-calls-again-packed", "entropy", {"calls.enabled"}, patch=replaced(never_again_packed), formats=PACKED
    ),
    Mutant(
        "calls-in-any-case-packed",
        "entropy",
        {"calls.disabled"},
        patch=changed(PackedRing, "driver_wants_call", ("return flag == EventFlag.ENABLE", "return True")),
        formats=PACKED,
    ),
    Mutant(
        "looks-at-the-last-descriptor-only",
        "entropy",
        {"calls.at-a-descriptor"},
        patch=changed(
            PackedRing,
            "driver_wants_call",
            ("position(place, self.size), count, self.size)", "position(place, self.size), 1, self.size)"),
        ),
        formats=PACKED,
    ),
    Mutant(
        "takes-the-event-in-any-lap",
        "entropy",
        {"calls.only-at-a-descriptor"},
        patch=changed(
            PackedRing,
            "driver_wants_call",
            (
                "return event_reached(event, position(place, self.size), count, self.size)",
                "return any(\n"
                "        event_reached(lap ^ event, position(place, self.size), count, self.size)\n"
                "        for lap in (0, 0x8000)\n"
                "    )",
            ),
        ),
        formats=PACKED,
    ),
    # Kicks
    Mutant("sets-an-unknown-flag", "entropy", {"kicks.flags-0-or-1"}, patch=after_enabling(flag_2), formats=SPLIT),
    Mutant(
        "sets-flags-with-event-idx",
        "entropy",
        {"kicks.flags-0-with-event-idx"},
        patch=after_enabling(flag_with_event_idx),
        formats=SPLIT,
    ),
    Mutant(
        "names-a-descriptor-without-event-idx",
        "entropy",
        {"kicks.device-event"},
        patch=after_enabling(desc_without_event_idx),
        formats=PACKED,
    ),
    Mutant(
        "wants-no-kicks-and-sleeps",
        "entropy",
        {"kicks.only-where-wanted"},
        patch=after_enabling(no_kicks),
        verdict=Verdict.HUNG,
    ),
    Mutant(
        "wants-a-kick-too-late",
        "entropy",
        {"kicks.only-where-wanted-with-event-idx"},
        patch=after_enabling(stale_event),
        verdict=Verdict.HUNG,
    ),
    Mutant(
        "gives-up-after-idle-kicks", "entropy", {"kicks.spurious"}, make=entropy(TiresOfNothing), verdict=Verdict.HUNG
    ),
]
