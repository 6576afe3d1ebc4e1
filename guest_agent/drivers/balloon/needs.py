"""What the driver takes of what a device offers, and what it cannot do without."""

from guest_agent.drivers.balloon.area import REPORTS_PER_REQUEST, BalloonArea
from guest_agent.drivers.balloon.behaviour import HintAnswer
from guest_agent.drivers.balloon.free_bitmap import FreeBitmap
from guest_agent.drivers.balloon.hinting import MIN_QUEUE_SIZE
from guest_agent.drivers.rings import RING_DRIVER_FEATURES
from spec.balloon import BalloonFeature, BalloonQueue
from spec.device import feature_mask

__all__ = ["BALLOON_DRIVER_FEATURES", "choose_features", "needed_size"]

BALLOON_DRIVER_FEATURES = RING_DRIVER_FEATURES | feature_mask(*BalloonFeature)
"""Every feature that this driver knows how to use."""


def needed_size(role: BalloonQueue, area: BalloonArea) -> int:
    """Return the fewest descriptors with which that queue works."""
    if role is BalloonQueue.REPORTING:
        return REPORTS_PER_REQUEST
    if role is not BalloonQueue.FREE_PAGE:
        return 1
    if area.hint_behaviour.answer is HintAnswer.LIST:
        return MIN_QUEUE_SIZE
    # The bitmap's parts, the buffer for requests, and STOP.
    return max(FreeBitmap.segment_count(area.memory) + 2, MIN_QUEUE_SIZE + 1)


def choose_features(offered: int, poison_value: int | None) -> int:
    """Return those of `offered` (a mask) that a guest can use whose free pages hold this pattern, None for none."""
    poison = feature_mask(BalloonFeature.PAGE_POISON)
    if poison_value is None:
        return offered & ~poison
    if poison_value and not offered & poison:
        # Its free pages hold a pattern that the device would not know of ("Feature bits", driver requirements).
        return offered & ~feature_mask(BalloonFeature.PAGE_REPORTING, BalloonFeature.FREE_PAGE_HINT)
    return offered
