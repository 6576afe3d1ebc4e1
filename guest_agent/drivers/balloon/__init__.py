"""The driver of the traditional memory balloon (virtio 1.4, "Traditional Memory Balloon Device")."""

from guest_agent.drivers.balloon.driver import BALLOON_DRIVER_FEATURES, BalloonDriver

__all__ = ["BALLOON_DRIVER_FEATURES", "BalloonDriver"]
