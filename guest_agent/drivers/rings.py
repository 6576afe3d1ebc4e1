"""What drivers want of their rings, whatever they drive."""

from spec.device import Feature, feature_mask

__all__ = ["RING_DRIVER_FEATURES", "usable_queue_size"]

RING_DRIVER_FEATURES = feature_mask(
    Feature.VERSION_1,
    Feature.EVENT_IDX,
    Feature.INDIRECT_DESC,
    Feature.RING_PACKED,
    Feature.IN_ORDER,
    Feature.ORDER_PLATFORM,
    Feature.NOTIFICATION_DATA,
    Feature.RING_RESET,
)
"""The features that every driver here knows how to use, beside its device type's own."""


def usable_queue_size(wanted: int, size_max: int) -> int:
    """Return `wanted`, or if the device cannot have so many the largest power of two that it can have; 0 if none."""
    if wanted <= size_max:
        return wanted
    return 1 << (size_max.bit_length() - 1) if size_max else 0
