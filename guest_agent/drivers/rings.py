"""What drivers want of their rings, whatever they drive."""

from spec.device import Feature, feature_mask

__all__ = ["RING_DRIVER_FEATURES", "usable_queue_size"]

RING_DRIVER_FEATURES = feature_mask(
    Feature.VERSION_1,
    Feature.EVENT_IDX,
    Feature.INDIRECT_DESC,
    Feature.RING_PACKED,
    Feature.IN_ORDER,
    Feature.NOTIFICATION_DATA,
    Feature.RING_RESET,
)
"""The features that every driver here knows how to use, beside its device type's own."""


def usable_queue_size(wanted: int, size_max: int) -> int:
    """Return the largest power of two that is at most `wanted` and at most what the device can have; 0 if none is."""
    limit = min(wanted, size_max)
    return 1 << (limit.bit_length() - 1) if limit else 0
