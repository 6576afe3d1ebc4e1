"""Features that a device does not offer because somebody said so, by the names that the text gives them."""

from collections.abc import Iterable

from spec.device import Feature, feature_mask, feature_names
from vdev.device import Device
from vdev.errors import UserError

__all__ = ["withhold_features"]

_NEEDED = feature_mask(Feature.VERSION_1)


def withhold_features(device: Device, names: Iterable[str]) -> None:
    """Have `device`, which nobody drives yet, not offer the features of these names; it is reset.

    A name is the text's, such as RING_PACKED or STATS_VQ, in letters of any size. Raises UserError for one that the
    device does not offer, and for VERSION_1.
    """
    mask = 0
    for name in names:
        mask |= _bit(device, name)
    if mask:
        device.offered_features &= ~mask
        # What a device derives from its offer, such as the numbers of its queues, it derives anew.
        device.reset()


def _bit(device: Device, name: str) -> int:
    offered = device.offered_features
    by_name = {
        feature_name: 1 << bit
        for bit in range(offered.bit_length())
        for feature_name in feature_names(offered & 1 << bit, device.type_features)
    }
    bit = by_name.get(name.upper().replace("-", "_"))
    if bit is None:
        choices = ", ".join(choice for choice, mask in by_name.items() if mask != _NEEDED)
        raise UserError(f"{device.name} offers no feature {name!r}; leave out any of {choices}")
    if bit == _NEEDED:
        raise UserError(
            f"{device.name} cannot do without {name}: its driver would take it for a device of before virtio 1.0,"
            " whose registers and byte order are others"
        )
    return bit
