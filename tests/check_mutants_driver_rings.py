"""Faults in what a driver stores in its rings, and in when it notifies."""

from check_driver_mutants import SPLIT, DriverMutant, changed, replaced
from check_driver_setup import DATA, INDIRECT_CAPACITY, RAM_SIZE, Rings

from guest_agent.virtqueue import descriptors, make_driver_queue, packed_descriptors
from guest_agent.virtqueue.buffers import checked_segments
from guest_agent.virtqueue.descriptors import Descriptors
from guest_agent.virtqueue.packed import PackedDriverQueue
from guest_agent.virtqueue.packed_descriptors import PackedDescriptors
from guest_agent.virtqueue.split import SplitDriverQueue
from spec.device import Feature, feature_mask

PACKED = ("packed",)
NOT_IN_ORDER = ~feature_mask(Feature.IN_ORDER)
NO_EVENTS = ~feature_mask(Feature.EVENT_IDX)
DIRECT = ~feature_mask(Feature.INDIRECT_DESC)


def segments_changed(change):
    """Both formats' buffers are what ``change`` makes of their checked segments."""

    def checked(*arguments, **options):
        return change(checked_segments(*arguments, **{**options, "queue_size": 1000}))

    def apply(patch):
        for module in (descriptors, packed_descriptors):
            patch.setattr(module, "checked_segments", checked)

    return replaced(apply)


def posting(*shapes, **attributes):
    return type("Own", (Rings,), {"shapes": shapes, **attributes})


class LongTable(Rings):
    """Has buffers of more segments than its queues have descriptors, in tables."""

    size = 4

    def post(self, queue, readable_count, writable_count):
        queue.add([(DATA + 64 * part, 64) for part in range(6)], [], self.count)

    @staticmethod
    def make_queue(*arguments, indirect_capacity):
        return make_driver_queue(*arguments, indirect_capacity=INDIRECT_CAPACITY)


class UnagreedTables(Rings):
    """Uses indirect tables whether or not that was agreed."""

    @staticmethod
    def make_queue(memory, number, size, area, features, *, indirect_capacity):
        features |= feature_mask(Feature.INDIRECT_DESC)
        return make_driver_queue(memory, number, size, area, features, indirect_capacity=INDIRECT_CAPACITY)


def flagged_table(self, head, segments):
    REAL_STORE_INDIRECT(self, head, segments)
    area = self._area
    area.words[(area.layout.indirect + area.layout.indirect_table_size * head) // 8 + 1] |= 4 << 32


REAL_STORE_INDIRECT = Descriptors._store_indirect


class ChangesInFlight(Rings):
    """Makes what it has posted longer, when it is too late."""

    def step(self):
        busy = super().step()
        self.change()
        return busy

    def change(self):
        queue = self.queues[0]
        # The address of a descriptor: somewhere in every split table and packed ring something is out.
        for at in range(queue.addresses.descriptor, queue.addresses.descriptor + 16 * queue.size, 16):
            address = int.from_bytes(self.memory.read(at, 8), "little")
            self.memory.write(at, (address + 0x40).to_bytes(8, "little"))


class ChangesAtTheEnd(ChangesInFlight):
    """Takes its buffers away, and resets the device afterwards."""

    def step(self):
        return Rings.step(self)

    def stop(self):
        self.change()
        self.transport.read(0x70)
        self.transport.write(0x70, int(self.transport.status))
        super().stop()


class EntryLate(Rings):
    """Shows an entry of the available ring, and notifies, before it has stored it."""

    def post(self, queue, readable_count, writable_count):
        head = queue.add([], [(DATA, 64)], self.count)
        at = queue.addresses.driver + 4 + 2 * (self.count_of(queue) % queue.size)
        self.memory.write(at, (head + 1 & 0x7).to_bytes(2, "little"))
        queue.publish()
        self.transport.read(0x70)
        self.transport.write(0x70, int(self.transport.status))
        self.memory.write(at, head.to_bytes(2, "little"))
        self.transport.publish(queue)

    def count_of(self, queue):
        return int.from_bytes(self.memory.read(queue.addresses.driver + 2, 2), "little")


class QuietWhileBusy(Rings):
    """Wants no calls while it looks at its rings."""

    def _work(self, number):
        self.queues[number].disable_calls()
        busy = super()._work(number)
        self.queues[number].enable_calls()
        return busy

    def post(self, queue, readable_count, writable_count):
        super().post(queue, readable_count, writable_count)
        self.transport.publish(queue)


class OneByOne(Rings):
    """Publishes each buffer by itself."""

    def post(self, queue, readable_count, writable_count):
        super().post(queue, readable_count, writable_count)
        self.transport.publish(queue)


class KicksEachTime(OneByOne):
    """Notifies for each buffer, whatever the device says."""

    def post(self, queue, readable_count, writable_count):
        Rings.post(self, queue, readable_count, writable_count)
        queue.publish()
        queue.should_kick()
        self.transport.notify(queue.notification_data() if self.features >> 38 & 1 else queue.number)


def outside(segments):
    return [(RAM_SIZE + 0x1000, size, flags) for _, size, flags in segments]


def never(self):
    return False


REAL_STORE_CHAIN = PackedDescriptors._store_chain


def ids_changed(change):
    """Ids in a packed ring are what ``change`` makes of them."""

    def store(self, place, segments, buffer_id):
        REAL_STORE_CHAIN(self, place, segments, change(buffer_id))

    return replaced(lambda patch: patch.setattr(PackedDescriptors, "_store_chain", store))


_BY_FLAGS = "return not self._area.used[_FLAGS] & _NO_NOTIFY"

MUTANTS = [
    DriverMutant(
        "writable-first",
        {"split.writable-last"},
        patch=segments_changed(lambda segments: segments[::-1]),
        formats=SPLIT,
    ),
    DriverMutant(
        "writable-first-packed",
        {"packed.writable-last"},
        patch=segments_changed(lambda segments: segments[::-1]),
        formats=PACKED,
    ),
    DriverMutant(
        "loop",
        {"split.chain-ends"},
        patch=changed(
            Descriptors,
            "_store_chain",
            (
                "words[word + 1] = size | flags << 32\n",
                "words[word + 1] = size | (flags | _NEXT) << 32 | slots[0] << 48\n",
            ),
        ),
        formats=SPLIT,
        offered=NOT_IN_ORDER,
    ),
    DriverMutant(
        "table-too-long",
        {"split.chain-fits"},
        LongTable,
        patch=segments_changed(lambda segments: segments),
        formats=SPLIT,
    ),
    DriverMutant(
        "table-too-long-packed",
        {"packed.table-fits"},
        LongTable,
        patch=segments_changed(lambda segments: segments),
        formats=PACKED,
    ),
    DriverMutant(
        "list-without-end",
        {"packed.list-fits"},
        posting((4, 4), depth=1),
        patch=changed(PackedDescriptors, "_store_chain", ("(_NEXT if at < last else 0)", "_NEXT")),
        formats=PACKED,
        offered=DIRECT,
    ),
    DriverMutant(
        "list-into-what-is-out",
        {"packed.list-has-room"},
        posting((2, 2), depth=2),
        patch=changed(
            PackedDescriptors,
            "_store_chain",
            ("(_NEXT if at < last else 0)", "(_NEXT if at < last or offset == 7 else 0)"),
        ),
        formats=PACKED,
        offered=DIRECT,
        games=("late",),
    ),
    DriverMutant("tables-not-agreed", {"split.indirect-agreed"}, UnagreedTables, formats=SPLIT, games=("bare",)),
    DriverMutant(
        "tables-not-agreed-packed", {"packed.indirect-agreed"}, UnagreedTables, formats=PACKED, games=("bare",)
    ),
    DriverMutant(
        "table-in-a-table",
        {"split.no-table-in-a-table"},
        patch=replaced(lambda patch: patch.setattr(Descriptors, "_store_indirect", flagged_table)),
        formats=SPLIT,
    ),
    DriverMutant(
        "next-in-a-table",
        {"packed.table-flags"},
        patch=changed(
            PackedDescriptors,
            "_store_table",
            ("words[word + 1] = size | flags << 48", "words[word + 1] = size | (flags | _NEXT) << 48"),
        ),
        formats=PACKED,
    ),
    DriverMutant(
        "indirect-and-next",
        {"split.indirect-without-next"},
        patch=changed(Descriptors, "_store_indirect", ("size | _INDIRECT << 32", "size | (_INDIRECT | _NEXT) << 32")),
        formats=SPLIT,
        also={"split.chain-ends", "split.in-order-chains", "split.chain-fits", "ring.head-not-in-flight"},
    ),
    DriverMutant(
        "indirect-and-next-packed",
        {"packed.indirect-alone"},
        patch=changed(PackedDescriptors, "_store_table", ("table_size, _INDIRECT", "table_size, _INDIRECT | _NEXT")),
        formats=PACKED,
        also={"packed.list-is-whole", "packed.list-has-room", "packed.list-fits"},
    ),
    DriverMutant(
        "chains-out-of-order",
        {"split.in-order-chains"},
        posting((2, 2)),
        patch=changed(
            Descriptors,
            "_take_slots",
            ("for slot in range(first, first + count)]", "for slot in range(first + count - 1, first - 1, -1)]"),
        ),
        formats=SPLIT,
        offered=DIRECT,
    ),
    DriverMutant(
        "tables-out-of-order",
        {"split.in-order-tables"},
        patch=changed(
            Descriptors,
            "_store_indirect",
            ("range(len(segments))", "(0, *range(len(segments) - 1, 0, -1))"),
        ),
        formats=SPLIT,
    ),
    DriverMutant(
        "rest-of-the-list-later",
        {"packed.list-is-whole"},
        posting((2, 2)),
        patch=changed(
            PackedDescriptors,
            "_store_chain",
            ("(_USED if lap & 1 else _AVAIL)", "(_USED if (lap & 1) == (at == place) else _AVAIL)"),
        ),
        formats=PACKED,
        offered=DIRECT,
        also={"packed.left-alone", "packed.kick-says-where"},
    ),
    DriverMutant("beyond-ram", {"features.physical-addresses"}, patch=segments_changed(outside)),
    DriverMutant("id-too-large", {"packed.id-below-size"}, patch=ids_changed(lambda each: each + 8), formats=PACKED),
    DriverMutant(
        "changes-what-is-out",
        {"split.left-alone"},
        ChangesInFlight,
        formats=SPLIT,
        games=("late",),
        also={"ring.alive-to-the-end"},
    ),
    DriverMutant(
        "changes-what-is-out-packed",
        {"packed.left-alone"},
        ChangesInFlight,
        formats=PACKED,
        games=("late",),
        also={"ring.alive-to-the-end"},
    ),
    DriverMutant("index-before-entry", {"split.left-alone"}, EntryLate, formats=SPLIT, also={"ring.alive-to-the-end"}),
    DriverMutant(
        "takes-away-what-is-out", {"ring.alive-to-the-end"}, ChangesAtTheEnd, games=("never",), also={"*.left-alone"}
    ),
    DriverMutant(
        "index-goes-back",
        {"split.index-goes-on"},
        patch=changed(
            SplitDriverQueue,
            "publish",
            ("area.store_available_word(_IDX, index)", "area.store_available_word(_IDX, index - count - 1 & 0xFFFF)"),
        ),
        formats=SPLIT,
    ),
    DriverMutant(
        "id-in-flight",
        {"ring.head-not-in-flight"},
        posting((0, 1)),
        patch=ids_changed(lambda _: 0),
        formats=PACKED,
        games=("late",),
    ),
    DriverMutant(
        "flags-of-2",
        {"split.flags-are-0-or-1"},
        QuietWhileBusy,
        patch=changed(SplitDriverQueue, "disable_calls", ("_FLAGS, _NO_INTERRUPT", "_FLAGS, 2")),
        formats=SPLIT,
        offered=NO_EVENTS,
    ),
    DriverMutant(
        "flags-with-event-idx",
        {"split.flags-are-0"},
        QuietWhileBusy,
        patch=changed(SplitDriverQueue, "disable_calls", ("if self._event_idx:", "if False:")),
        formats=SPLIT,
    ),
    DriverMutant(
        "kicks-although-unwanted", {"split.no-kick-unless-wanted"}, KicksEachTime, formats=SPLIT, games=("no-kicks",)
    ),
    DriverMutant(
        "no-kick-with-flags-0",
        {"split.kick-where-flags-are-0"},
        patch=changed(SplitDriverQueue, "should_kick", (_BY_FLAGS, "return False")),
        formats=SPLIT,
        offered=NO_EVENTS,
    ),
    DriverMutant(
        "event-without-event-idx",
        {"game.kicks-by-flags"},
        patch=changed(SplitDriverQueue, "should_kick", ("if self._event_idx:", "if True:")),
        formats=SPLIT,
        games=("kicks-by-flags",),
        also={"split.kick-where-flags-are-0"},
    ),
    DriverMutant(
        "flags-with-event-idx-kept-to",
        {"game.kicks-by-event"},
        patch=changed(
            SplitDriverQueue,
            "should_kick",
            ("return event_reached(", "return not self._area.used[_FLAGS] and event_reached("),
        ),
        formats=SPLIT,
        games=("kicks-by-event",),
        also={"split.kick-at-event"},
    ),
    DriverMutant(
        "no-kick-at-the-event",
        {"split.kick-at-event"},
        patch=replaced(lambda patch: patch.setattr(SplitDriverQueue, "should_kick", never)),
        formats=SPLIT,
    ),
    DriverMutant(
        "kicks-before-the-event", {"split.no-kick-before-event"}, KicksEachTime, formats=SPLIT, games=("kick-later",)
    ),
    DriverMutant(
        "no-kick-packed",
        {"packed.kicks"},
        patch=replaced(lambda patch: patch.setattr(PackedDriverQueue, "should_kick", never)),
        formats=PACKED,
    ),
    DriverMutant(
        "kick-without-wrap",
        {"packed.kick-says-where"},
        patch=changed(PackedDriverQueue, "notification_data", ("self.size) << 16", "self.size) << 16 & 0x7FFF_FFFF")),
        formats=PACKED,
    ),
]
