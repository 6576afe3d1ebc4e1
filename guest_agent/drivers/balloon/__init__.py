"""The driver of the traditional memory balloon (virtio 1.4, "Traditional Memory Balloon Device")."""

from guest_agent.drivers.balloon.behaviour import (
    HintAnswer,
    HintBehaviour,
    HintCollecting,
    HintHolding,
    HintRefresh,
    StartBuffer,
)
from guest_agent.drivers.balloon.driver import BALLOON_DRIVER_FEATURES, BalloonDriver
from guest_agent.drivers.balloon.piece import Piece

__all__ = [
    "BALLOON_DRIVER_FEATURES",
    "BalloonDriver",
    "HintAnswer",
    "HintBehaviour",
    "HintCollecting",
    "HintHolding",
    "HintRefresh",
    "Piece",
    "StartBuffer",
]
