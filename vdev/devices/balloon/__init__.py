"""The traditional memory balloon (virtio 1.4, "Traditional Memory Balloon Device"), the device's side."""

from vdev.devices.balloon.device import BalloonDevice
from vdev.devices.balloon.hint_states import HINT_TRANSITIONS, HintInput, HintState
from vdev.devices.balloon.hint_taker import HintedDevice, HintTaker
from vdev.devices.balloon.hinting import Hinting

__all__ = ["HINT_TRANSITIONS", "BalloonDevice", "HintInput", "HintState", "HintTaker", "HintedDevice", "Hinting"]
