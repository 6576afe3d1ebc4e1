"""A balloon's driver and device that only hint, in each way that there is, and the steps of the driver alone."""

import itertools

from device_setup import BASE, BalloonPair

from guest_agent.allocator import BuddyAllocator
from guest_agent.drivers.balloon import BalloonDriver, HintBehaviour, Piece
from guest_agent.marked_ram import MarkedRam
from guest_agent.mmio import MmioDriver
from guest_agent.page_database import Owner
from guest_agent.ram_layout import BootPage
from spec.balloon import BalloonFeature
from spec.device import Feature, feature_mask

BLOCK = 1024
HINTS_ALONE = feature_mask(
    Feature.VERSION_1,
    Feature.EVENT_IDX,
    Feature.INDIRECT_DESC,
    Feature.RING_PACKED,
    Feature.IN_ORDER,
    Feature.RING_RESET,
    BalloonFeature.FREE_PAGE_HINT,
)
HELD = (Owner.HINT_COLLECTED, Owner.HINTED, Owner.HINT_USED)
NAMES = ("answer", "holds", "collects", "start_buffer")
WAYS = [
    dict(zip(NAMES, words, strict=True))
    for words in itertools.product(
        ("list", "bitmap"),
        ("nothing", "until-queued", "until-used"),
        ("after-announcing", "before-announcing"),
        ("fresh", "shared"),
    )
]


def pair_with(*, queue_size=128, defer_kicks=False, listen=False, interval_field=False, checks_id=True, **words):
    pair = BalloonPair(
        features=HINTS_ALONE,
        queue_size=queue_size,
        defer_kicks=defer_kicks,
        listen=listen,
        interval_field=interval_field,
        behaviour=HintBehaviour.of(**words),
    )
    pair.device.hinting.checks_id = checks_id
    return pair


def held(pair):
    return sum(pair.guest.held(owner) for owner in HELD)


def restart_driver(pair):
    """Go on with another driver object over the same RAM."""
    allocator = BuddyAllocator.attach(BootPage.attach(MarkedRam(pair.memory)), pair.guest.allocator.database)
    pair.driver = BalloonDriver.resume(
        MmioDriver(pair.wire, BASE), pair.memory, allocator, pair.guest.area_address, statistics=dict
    )


def steps(pair, until=lambda: False, *, restarts=False):
    """Let the driver alone act, piece by piece, until it has nothing to do; return the names of the pieces."""
    names = []
    while True:
        if pair.wire.interrupt_count:
            pair.wire.interrupt_count = 0
            pair.driver.handle_interrupt()
        if restarts:
            restart_driver(pair)
        piece = pair.driver.next_piece
        if piece is Piece.IDLE or until():
            return names
        pair.driver.work()
        names.append(piece.value)
        assert len(names) < 1000
