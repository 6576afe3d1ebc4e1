"""A device that a vhost-user back end serves, as its driver reaches it: started by messages, worked by eventfds."""

import select
import socket
import time
from collections.abc import Callable, Collection

import construct

from guest_agent.transport import DeviceRefused
from guest_agent.vhost_user.addresses import shared_regions
from guest_agent.vhost_user.back_end import BackEnd
from guest_agent.vhost_user.bases import first_base
from guest_agent.vhost_user.configuration import Configuration, field_span
from guest_agent.vhost_user.connection import PATIENCE
from guest_agent.vhost_user.errors import BackEndLost, BackEndRefused
from guest_agent.vhost_user.rings import Rings
from guest_agent.vhost_user.session import KNOWN_PROTOCOL_FEATURES
from guest_agent.vhost_user.write_log import WriteLog
from guest_agent.virtqueue.queue import DriverAddresses, DriverQueue
from spec.device import DeviceStatus, feature_mask
from spec.mmio import Interrupt
from spec.vhost_user import LOG_ALL, PROTOCOL_FEATURES, ConfigFlag, FrontEndRequest, ProtocolFeature
from vdev.errors import DeviceViolation
from vdev.events import SILENT, Emitter
from vdev.memory import GuestMemory

__all__ = ["QUEUE_SIZE_MAX", "ServedDevice"]

QUEUE_SIZE_MAX = 1024
"""The protocol does not tell how large a queue can be; back ends of others take this much."""

_R = FrontEndRequest
_NOT_THE_DRIVERS = feature_mask(LOG_ALL, PROTOCOL_FEATURES)
_QUEUE_COUNT_MAX = 256
"""A ring's number has 8 bits where its eventfds are told."""


class ServedDevice:
    """A device behind `sock`, a connected unix stream socket that belongs to this object from now on.

    `device_id`, `queue_size_max` and, for a back end without MQ, `queue_count` are what the protocol does not tell.
    `patience` is the limit of each wait for the back end, in seconds of `clock`; `name` names it in errors. A back end
    that breaks the protocol, goes away or does not answer is given up: BackEndLost, which is a DeviceViolation. From
    then on `lost` says why and the device needs a reset, which fails, until `reconnect`.

    Raises BackEndLost if what is connected is no back end, UserError for RAM that cannot be shared.
    """

    def __init__(
        self,
        memory: GuestMemory,
        sock: socket.socket,
        *,
        device_id: int,
        queue_size_max: int = QUEUE_SIZE_MAX,
        queue_count: int = _QUEUE_COUNT_MAX,
        wanted_protocol_features: int = KNOWN_PROTOCOL_FEATURES,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
        name: str = "the back end",
        events: Emitter = SILENT,
    ) -> None:
        self.name = name
        self._device_id = device_id
        self._memory = memory
        self._queue_size_max = queue_size_max
        self._queue_count = queue_count
        self._wanted_protocol_features = wanted_protocol_features
        self._patience = patience
        self._clock = clock
        self._rings = Rings(memory, events)
        self._status = DeviceStatus.RESET
        self._features = 0
        self._live = False
        self._suspended = False
        self._pending = Interrupt(0)
        self._ring_error: str | None = None
        self._log: WriteLog | None = None
        self._polled: list[int] = []
        self._poll = select.poll()
        self._connect(sock)

    def _connect(self, sock: socket.socket) -> None:
        try:
            shared_regions(self._memory)
        except BaseException:
            sock.close()
            raise
        self._configuration = Configuration()
        self._back_end = BackEnd(
            sock,
            name=self.name,
            wanted_protocol_features=self._wanted_protocol_features,
            patience=self._patience,
            clock=self._clock,
        )

    def close(self) -> None:
        """Close everything that belongs to the operating system; the object is of no use then."""
        self._back_end.connection.close()
        self._rings.clear()
        self._drop_log()

    def _drop_log(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    # What the device is

    @property
    def device_id(self) -> int:
        """What kind of device it is: as the constructor was told."""
        return self._device_id

    @property
    def protocol_features(self) -> int:
        """The mask of protocol features in use."""
        return self._back_end.session.protocol_features

    @property
    def lost(self) -> BackEndLost | None:
        """Why the back end was given up, None while it is in use."""
        return self._back_end.lost

    @property
    def ring_error(self) -> str | None:
        """What the back end told through a ring's err eventfd, None while it told nothing."""
        return self._ring_error

    @property
    def status(self) -> DeviceStatus:
        """The device status: the back end's with STATUS, what the driver wrote otherwise. Raises BackEndLost."""
        if not self._back_end.has(ProtocolFeature.STATUS):
            return self._status
        return DeviceStatus(self._back_end.ask(_R.GET_STATUS).value)

    @property
    def needs_reset(self) -> bool:
        """Whether the device can do nothing more until it is reset: it says so, a ring is in error, or it is lost."""
        if self.lost is not None or self._ring_error is not None:
            return True
        try:
            return bool(self.status & DeviceStatus.DEVICE_NEEDS_RESET)
        except BackEndLost:
            return True

    # Starting, in the text's order

    def reset(self) -> None:
        """Stop all rings and reset the device. Raises DeviceViolation: BackEndLost, or if the status stays set."""
        self._rings.stop(self._back_end)
        self._rings.clear()
        self._drop_log()
        self._status, self._features, self._live = DeviceStatus.RESET, 0, False
        self._suspended, self._ring_error, self._pending = False, None, Interrupt(0)
        if self._back_end.has(ProtocolFeature.RESET_DEVICE):
            self._back_end.ask(_R.RESET_DEVICE)
        if self._back_end.has(ProtocolFeature.STATUS):
            self._back_end.ask(_R.SET_STATUS, value=0)
            if status := self._back_end.ask(_R.GET_STATUS).value:
                raise DeviceViolation(
                    "Basic Facilities of a Virtio Device / Device Reset", f"the status is {status:#x} after reset"
                )

    def acknowledge_device(self) -> None:
        """Reset the device, then set ACKNOWLEDGE and DRIVER."""
        self.reset()
        self.set_status(DeviceStatus.ACKNOWLEDGE)
        self.set_status(DeviceStatus.DRIVER)

    def set_status(self, bit: DeviceStatus) -> None:
        """Set one more status bit; the back end is told with STATUS, while it is not lost."""
        self._status |= bit
        if self.lost is None and self._back_end.has(ProtocolFeature.STATUS):
            self._back_end.ask(_R.SET_STATUS, value=int(self._status))

    def offered_features(self) -> int:
        """Return the mask of features that the device offers its driver."""
        return self._back_end.offered_features & ~_NOT_THE_DRIVERS

    def accept_features(self, features: int) -> None:
        """Accept a mask of features and set FEATURES_OK. Raises DeviceRefused if the device does not take them."""
        self._set_features(features)
        self.set_status(DeviceStatus.FEATURES_OK)
        if not self.status & DeviceStatus.FEATURES_OK:
            raise self.fail(f"the device refuses features {features:#x}")

    def _set_features(self, features: int) -> None:
        if missing := features & ~self.offered_features():
            raise self.fail(f"the device does not offer features {missing:#x}")
        try:
            self._tell_features(features)
        except BackEndRefused:
            raise self.fail(f"the device refuses features {features:#x}") from None
        self._features = features

    def _tell_features(self, features: int) -> None:
        own = self._back_end.offered_features & feature_mask(PROTOCOL_FEATURES)
        if self._log is not None:
            own |= feature_mask(LOG_ALL)
        self._back_end.ask(_R.SET_FEATURES, value=features | own)

    def negotiate(self, wanted_features: int, *, required: tuple[int, ...] = ()) -> int:
        """Accept those of `wanted_features` (a mask) that are offered; return them.

        Raises DeviceRefused if one of the `required` bits is not offered, or the device does not take the set.
        """
        features = self.offered_features() & wanted_features
        if missing := feature_mask(*required) & ~features:
            raise self.fail(f"the device does not offer features {missing:#x}, which this driver needs")
        self.accept_features(features)
        return features

    def queue_size_max(self, number: int) -> int:
        """Return the most descriptors that queue `number` can have, 0 if there is no such queue."""
        told = self._back_end.queue_count
        count = min(self._queue_count if told is None else told, _QUEUE_COUNT_MAX)
        return self._queue_size_max if number < count else 0

    def set_up_queue(self, number: int, addresses: DriverAddresses) -> None:
        """Tell the device where queue `number` is. Raises DeviceRefused if it cannot have it."""
        size_max = self.queue_size_max(number)
        if addresses.size > size_max:
            raise self.fail(f"queue {number} has at most {size_max} descriptors, not {addresses.size}")
        if number in self._rings:
            raise DeviceViolation("Virtqueue Configuration", "a queue was ready before it was set up", queue=number)
        ring = self._rings.add(number, addresses, first_base(self._features))
        try:
            self._back_end.tell_memory(self._memory)
            self._rings.configure(self._back_end, ring)
            if self._live:
                self._rings.start(self._back_end)
        except BackEndRefused as refusal:
            self._rings.drop(number)
            raise self.fail(str(refusal)) from None

    def reset_queue(self, number: int) -> None:
        """Stop one queue (RING_RESET); its memory is the driver's again. Raises BackEndLost."""
        self._rings.stop(self._back_end, [ring for ring in self._rings if ring.number == number])
        self._rings.drop(number)

    def drive(self) -> None:
        """Set DRIVER_OK: start and enable all rings; the device is live. Raises DeviceRefused if it is not."""
        try:
            self._go_live()
        except BackEndRefused as refusal:
            raise self.fail(str(refusal)) from None

    def _go_live(self) -> None:
        self._rings.start(self._back_end)
        self._live = True
        self.set_status(DeviceStatus.DRIVER_OK)
        self._back_end.settle()

    def fail(self, why: str) -> DeviceRefused:
        """Set FAILED, and return the error to raise."""
        self.set_status(DeviceStatus.FAILED)
        return DeviceRefused(f"{self.name}: {why}")

    # Working

    def publish(self, queue: DriverQueue) -> None:
        """Show the device what was added to `queue`, and kick it if it wants to be told."""
        queue.publish()
        if queue.should_kick() and self.lost is None:
            self._rings.kick(queue.number)

    def filenos(self) -> list[int]:
        """Return the descriptors that become readable when the device interrupts, or is gone.

        None while the rings are stopped by `suspend`, for a lost back end, and after FAILED: nobody answers them then.
        """
        if self.lost is not None or self._suspended or self._status & DeviceStatus.FAILED:
            return []
        return [*self._rings.filenos(), *self._back_end.filenos()]

    def wait_interrupt(self, seconds: float | None) -> bool:
        """Wait at most `seconds` (None: without end) for an interrupt; say whether `take_interrupt` has something."""
        if self._pending or self.lost is not None:
            return True
        return bool(self._ready(seconds))

    def _ready(self, seconds: float | None) -> set[int]:
        """Return those of `filenos` that are readable, after at most `seconds` until one is."""
        fds = self.filenos()
        if fds != self._polled:
            # Made once and kept: this stands between a device's answer and its driver.
            self._polled, self._poll = fds, select.poll()
            for fd in fds:
                self._poll.register(fd, select.POLLIN)
        return {fd for fd, _ in self._poll.poll(None if seconds is None else seconds * 1000)}

    def take_interrupt(self) -> Interrupt:
        """Return why the device interrupted, and acknowledge just that.

        A ring in error and a lost back end are a CONFIGURATION_CHANGE: the driver looks, and finds that it needs a
        reset.
        """
        causes, self._pending = self._pending, Interrupt(0)
        if self.lost is not None:
            return causes | Interrupt.CONFIGURATION_CHANGE
        ready = self._ready(0)
        if self._rings.take_calls(ready):
            causes |= Interrupt.USED_BUFFER
        if in_error := self._rings.take_errors(ready):
            self._ring_error = f"{self.name}: error on ring {', '.join(map(str, in_error))}"
            causes |= Interrupt.CONFIGURATION_CHANGE
        if ready.isdisjoint(self._back_end.filenos()):
            return causes
        try:
            if self._back_end.take_config_changes():
                causes |= Interrupt.CONFIGURATION_CHANGE
        except BackEndLost:
            causes |= Interrupt.CONFIGURATION_CHANGE
        return causes

    def read_config(self, layout: construct.Construct, fields: Collection[str] | None = None) -> dict[str, int]:
        """Return integer fields of the configuration space as they were at one moment: these, or all. Raises
        DeviceViolation.

        Fields that the back end does not have are 0.
        """
        if not self._back_end.has(ProtocolFeature.CONFIG):
            raise DeviceViolation("Device Configuration Space", f"{self.name} has no configuration space")
        values = self._configuration.read(layout, self._get_config)
        return values if fields is None else {name: values[name] for name in values if name in fields}

    def _get_config(self, offset: int, size: int) -> bytes:
        reply = self._back_end.ask(_R.GET_CONFIG, offset=offset, size=size, flags=0, payload=bytes(size))
        return bytes(reply.payload)

    def config_size(self, layout: construct.Construct) -> int:
        """Return how many bytes of `layout` the configuration space has. Raises DeviceViolation."""
        self.read_config(layout)
        return self._configuration.size_of(layout)

    def write_config(self, layout: construct.Construct, field: str, value: int) -> None:
        """Write one integer field of the configuration space. Raises DeviceViolation if the device does not take it."""
        if not self._back_end.has(ProtocolFeature.CONFIG):
            raise DeviceViolation("Device Configuration Space", f"{self.name} has no configuration space")
        start, end = field_span(layout, field)
        payload = value.to_bytes(end - start, "little")
        self._back_end.ask(
            _R.SET_CONFIG, offset=start, size=len(payload), flags=int(ConfigFlag.WRITABLE), payload=payload
        )
        # A kick that follows goes another way, and must not come first.
        self._back_end.settle()
