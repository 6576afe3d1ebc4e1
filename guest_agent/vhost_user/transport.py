"""A device that a vhost-user back end serves: as its driver reaches it, and as the guest around the driver moves it.

The driver's process is the front end: it shares guest RAM and each ring's eventfds with the back end. Then there are
messages only to start and stop, and for configuration space.
"""

import socket

import numpy as np
import numpy.typing as npt

from guest_agent.vhost_user.device_state import receive_state, send_state
from guest_agent.vhost_user.errors import BackEndGone, BackEndRefused
from guest_agent.vhost_user.saved import SavedRing, SavedTransport
from guest_agent.vhost_user.served_device import ServedDevice
from guest_agent.vhost_user.write_log import WriteLog
from spec.device import DeviceStatus
from spec.mmio import Interrupt
from spec.vhost_user import FrontEndRequest, ProtocolFeature

__all__ = ["VhostUserTransport"]


class VhostUserTransport(ServedDevice):
    """A `ServedDevice` whose rings can be stopped, and go on at the same back end or another one.

    A back end that is lost stays so until `reconnect`.
    """

    def suspend(self) -> None:
        """Stop all rings and keep their bases; the device stays as it is. A second call does nothing.

        Raises BackEndLost.
        """
        if not self._suspended:
            self._rings.stop(self._back_end)
            self._suspended = True

    def resume(self) -> None:
        """Set the rings up again from their bases, on this or, after `reconnect`, another back end.

        Kicks and calls that were lost meanwhile are made up for. Raises BackEndLost, also if the back end refuses.
        """
        if not self._suspended:
            return
        self._suspended = False
        self._pending |= Interrupt.USED_BUFFER | Interrupt.CONFIGURATION_CHANGE
        rings = list(self._rings)
        try:
            if rings:
                self._back_end.tell_memory(self._memory)
            for ring in rings:
                self._rings.configure(self._back_end, ring)
            if self._live:
                self._go_live()
        except BackEndRefused as refusal:
            raise self._back_end.give_up(refusal) from None
        if self._live:
            for ring in rings:
                self._rings.kick(ring.number)
            self._rings.ring_own_calls()

    def save(self) -> SavedTransport:
        """Return what another object needs to go on, with another back end. Rings must be stopped by `suspend`."""
        if not self._suspended and self.lost is None:
            raise RuntimeError("a front end is saved after it was suspended")
        return SavedTransport(
            self._device_id,
            self._features,
            int(self._status),
            tuple(SavedRing(ring.number, ring.addresses, ring.base) for ring in self._rings),
            str(self.lost.cause) if self.lost is not None else None,
        )

    def restore(self, saved: SavedTransport) -> None:
        """Be, on the fresh connection of this object, the front end that was saved; `resume` starts its rings.

        The device is not reset. Raises DeviceRefused if it is not one that the driver could go on with.
        """
        if saved.device_id != self._device_id:
            raise self.fail(f"a driver of device type {saved.device_id} cannot go on with type {self._device_id}")
        for ring in saved.rings:
            self._rings.add(ring.number, ring.addresses, ring.base)
        self._status = DeviceStatus(saved.status)
        self._features = saved.features
        self._live = bool(self._status & DeviceStatus.DRIVER_OK)
        if saved.lost is not None:
            self._back_end.give_up(BackEndGone(saved.lost))
            return
        self._agree_again()

    def reconnect(self, sock: socket.socket) -> None:
        """Go over to the back end behind `sock` with the same features; `resume` starts the rings there.

        Without `suspend` before, each ring goes on behind what was used, and the area for buffers in flight tells the
        new back end what the lost one had begun (INFLIGHT_SHMFD). The device is not reset.

        Raises BackEndLost, DeviceRefused if it does not offer those features, UserError for a ring that cannot go on.
        """
        try:
            self._back_end.connection.close()
            self._rings.leave(lost=not self._suspended, features=self._features)
        except BaseException:
            sock.close()
            raise
        self._ring_error = None
        self._drop_log()
        self._connect(sock)
        self._agree_again()

    def _agree_again(self) -> None:
        self._suspended = True
        if not self._status & DeviceStatus.FEATURES_OK:
            return
        self._set_features(self._features)
        if self._back_end.has(ProtocolFeature.STATUS):
            self._back_end.ask(FrontEndRequest.SET_STATUS, value=int(self._status & ~DeviceStatus.DRIVER_OK))

    def start_write_log(self) -> None:
        """Have the back end log what it writes to RAM, from now on (LOG_SHMFD); after features were accepted.

        A reset, and another back end, end it. Raises BackEndLost, or BackEndRefused if it does not log.
        """
        log = WriteLog(self._memory)
        log.renew(self._back_end)
        self._log = log
        self._tell_features(self._features)
        self._rings.tell_logging(self._back_end)

    def take_written(self) -> npt.NDArray[np.int64]:
        """Return the page frames that the back end wrote since the last call, or the start of its log, ascending.

        A frame is a guest-physical address divided by 4096. Raises BackEndLost, ValueError without a log.
        """
        if self._log is None:
            raise ValueError("the back end does not log its writes; call start_write_log first")
        return self._log.renew(self._back_end)

    def stop_write_log(self) -> npt.NDArray[np.int64]:
        """Return what `take_written` would, and have the back end log nothing more. Raises BackEndLost."""
        frames = self.take_written()
        log, self._log = self._log, None
        assert log is not None
        try:
            self._tell_features(self._features)
            self._rings.tell_logging(self._back_end)
            return np.union1d(frames, log.read())
        finally:
            log.close()

    def save_device_state(self) -> bytes:
        """Return the back end's own state (DEVICE_STATE); rings must be stopped.

        Raises BackEndLost, or BackEndRefused if it does not give it.
        """
        return receive_state(self._back_end)

    def load_device_state(self, state: bytes) -> None:
        """Give the back end a state that another one saved; before `resume`. Raises BackEndLost or BackEndRefused."""
        send_state(self._back_end, state)
