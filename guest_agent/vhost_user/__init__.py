"""The front end of vhost-user: a driver in this process works with a device that another process serves."""

from guest_agent.vhost_user.errors import BackEndGone, BackEndLost, BackEndNotResponding, BackEndRefused
from guest_agent.vhost_user.saved import SavedTransport, SavedTransportBroken
from guest_agent.vhost_user.transport import VhostUserTransport

__all__ = [
    "BackEndGone",
    "BackEndLost",
    "BackEndNotResponding",
    "BackEndRefused",
    "SavedTransport",
    "SavedTransportBroken",
    "VhostUserTransport",
]
