"""What a driver can be offered of the features of its device's type: those that the text knows."""

from spec.balloon import BalloonFeature
from spec.block import BlockFeature
from spec.device import feature_mask

__all__ = ["TYPE_FEATURES"]

TYPE_FEATURES = {
    "balloon": feature_mask(*BalloonFeature),
    "block": feature_mask(*BlockFeature),
    "entropy": 0,
}
"""Device type -> a mask of its own features."""
