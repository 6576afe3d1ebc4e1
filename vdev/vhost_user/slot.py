"""A device that this host serves to its own guest: vhost-user over a socket pair, over RAM that the host has."""

import socket

from vdev.device import Device
from vdev.vhost_user.server import BackEnd

__all__ = ["Slot"]


class Slot:
    """A plugged-in device. The guest process gets `guest_end`; run `serve` in a nursery while the guest lives.

    The device keeps the RAM that it was made with: the front end must tell of the same.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self._back_end = BackEnd(device, owns_memory=True)
        self._ours, self.guest_end = socket.socketpair()

    async def serve(self) -> None:
        """Serve the guest until it goes away."""
        await self._back_end.serve_connection(self._ours)

    def save(self) -> bytes:
        """Return the device's state; its rings stand still."""
        return self.device.save()

    def restore(self, state: bytes) -> None:
        """Go on from what `save` gave, when the guest attaches its rings again. Raises SavedStateError."""
        self.device.restore(state)
        self._back_end.keep_state()

    def close(self) -> None:
        """Close what is left of the socket pair."""
        self._ours.close()
        self.guest_end.close()
