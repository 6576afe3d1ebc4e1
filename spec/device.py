"""What every virtio device has (virtio 1.4, "Basic Facilities"): status bits, reserved feature bits, device ids."""

from collections.abc import Iterable
from enum import IntEnum, IntFlag

__all__ = [
    "FEATURE_REQUIRES",
    "DeviceId",
    "DeviceStatus",
    "Feature",
    "feature_mask",
    "feature_names",
    "is_device_type_feature",
]


class DeviceStatus(IntFlag):
    """The device status field; the driver sets bits in order while it starts the device."""

    RESET = 0
    ACKNOWLEDGE = 1
    DRIVER = 2
    DRIVER_OK = 4
    FEATURES_OK = 8
    SUSPEND = 16
    DEVICE_NEEDS_RESET = 64
    FAILED = 128


class DeviceId(IntEnum):
    """Virtio device types that this project knows."""

    NONE = 0
    NETWORK = 1
    BLOCK = 2
    CONSOLE = 3
    ENTROPY = 4
    BALLOON = 5
    FILE_SYSTEM = 26


class Feature(IntEnum):
    """Feature bits that are not a device type's own: 24 and up, with the two legacy ones among them."""

    NOTIFY_ON_EMPTY = 24
    ANY_LAYOUT = 27
    INDIRECT_DESC = 28
    EVENT_IDX = 29
    VHOST_USER_PROTOCOL_FEATURES = 30
    VERSION_1 = 32
    ACCESS_PLATFORM = 33
    RING_PACKED = 34
    IN_ORDER = 35
    ORDER_PLATFORM = 36
    SR_IOV = 37
    NOTIFICATION_DATA = 38
    NOTIF_CONFIG_DATA = 39
    RING_RESET = 40
    ADMIN_VQ = 41
    SUSPEND = 43


FEATURE_REQUIRES: dict[int, tuple[int, ...]] = {
    Feature.RING_PACKED: (Feature.VERSION_1,),
    Feature.NOTIFICATION_DATA: (Feature.VERSION_1,),
    Feature.NOTIF_CONFIG_DATA: (Feature.VERSION_1,),
    Feature.IN_ORDER: (Feature.VERSION_1,),
    Feature.RING_RESET: (Feature.VERSION_1,),
}
"""Reserved feature bit -> bits without which it means nothing."""


def is_device_type_feature(bit: int) -> bool:
    """Say whether `bit` belongs to the device type rather than to all devices ("Feature Bits")."""
    return bit <= 23 or bit == 42 or 50 <= bit <= 127


def feature_mask(*bits: int) -> int:
    """Return an integer with each of `bits` set.

    >>> hex(feature_mask(Feature.VERSION_1, Feature.EVENT_IDX))
    '0x120000000'
    """
    mask = 0
    for bit in bits:
        mask |= 1 << bit
    return mask


def feature_names(mask: int, type_features: Iterable[IntEnum] = ()) -> list[str]:
    """Return what the text calls each bit of `mask`, the lowest first; a bit that has no name here is its number.

    `type_features` are the device type's own.

    >>> feature_names(feature_mask(Feature.VERSION_1, Feature.EVENT_IDX, 99))
    ['EVENT_IDX', 'VERSION_1', '99']
    """
    names = {int(feature): feature.name for feature in (*type_features, *Feature)}
    return [names.get(bit, str(bit)) for bit in range(mask.bit_length()) if mask >> bit & 1]
