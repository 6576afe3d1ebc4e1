"""The device's queues over the front end's rings: taken into use when a ring is to be served, left when it is not."""

from collections.abc import Callable, Sequence

from spec.device import Feature
from vdev.device import Device
from vdev.errors import DriverViolation
from vdev.memory import Region
from vdev.vhost_user.bring_up import BringUp
from vdev.vhost_user.counted_queue import CountedQueue
from vdev.vhost_user.inflight import Inflight
from vdev.vhost_user.packed_inflight import PackedInflightQueue
from vdev.vhost_user.split_inflight import SplitInflightQueue
from vdev.vhost_user.vring import Vring
from vdev.virtqueue.queue import DeviceQueue, QueueAddresses

__all__ = ["Attachment"]


class Attachment:
    """Keeps the queues of `device` in step with `rings`. `on_run` is called when a ring begins to be served,
    `on_violation` when the device needs a reset.
    """

    def __init__(
        self,
        device: Device,
        rings: Callable[[], Sequence[Vring]],
        bring_up: BringUp,
        inflight: Inflight,
        *,
        on_run: Callable[[], None],
        on_violation: Callable[[DriverViolation], None],
    ) -> None:
        self._device = device
        self._rings = rings
        self._bring_up = bring_up
        self._inflight = inflight
        self._on_run = on_run
        self._on_violation = on_violation

    def settle(self, ring: Vring) -> None:
        """Serve the ring, or do not, as its state and set-up say.

        A set-up that the device cannot take becomes the ring's error. Raises FrontEndViolation for a base or an area
        of buffers in flight that cannot be; the ring is then not served.
        """
        is_wanted = ring.is_started and ring.is_enabled and ring.addresses is not None and ring.size > 0
        if is_wanted == ring.is_served:
            return
        if is_wanted:
            self._attach(ring)
        else:
            ring.is_served = False
            self._bring_up.detach(ring)
        ring.on_change()

    def _attach(self, ring: Vring) -> None:
        queue = self._bring_up.attach(ring, self._rings())
        if queue is None:
            self._fail(ring)
            return
        try:
            self._device.queues[ring.number] = self._noted(queue, ring)
        except DriverViolation as violation:
            self._device.stop_queue(ring.number)
            self._device.needs_reset(violation)
            self._fail(ring)
            return
        except BaseException:
            self._device.stop_queue(ring.number)
            raise
        ring.is_served = True
        self._bring_up.drive()
        self._on_run()

    def _fail(self, ring: Vring) -> None:
        violation = self._found_violation()
        ring.fail(str(violation))
        if violation is not None:
            self._on_violation(violation)

    def _found_violation(self) -> DriverViolation | None:
        violation = self._device.violation
        if violation is not None:
            # The device keeps it, and its frames have guest RAM mapped.
            violation.__traceback__ = violation.__context__ = violation.__cause__ = None
        return violation

    def _noted(self, queue: DeviceQueue, ring: Vring) -> DeviceQueue:
        features = self._bring_up.features or 0
        packed = bool(features >> Feature.RING_PACKED & 1)
        region = self._inflight.region(ring.number, ring.size, packed=packed)
        if region is None or ring.addresses is None:
            return CountedQueue(queue, ring)
        kind = PackedInflightQueue if packed else SplitInflightQueue
        return kind(
            queue,
            ring,
            region,
            self._device.memory,
            QueueAddresses(ring.size, *ring.addresses.areas),
            indirect=bool(features >> Feature.INDIRECT_DESC & 1),
        )

    def replace_memory(self, regions: Sequence[Region]) -> None:
        """Have guest RAM consist of these regions; served rings go on where they are.

        Raises as `Device.replace_memory` does.
        """
        self._device.replace_memory(regions)
        for ring in self._rings():
            if not ring.is_served:
                continue
            queue = self._device.queues.get(ring.number)
            if queue is not None:
                self._device.queues[ring.number] = self._noted(queue, ring)

    def report_violation(self) -> None:
        """Tell the front end, through the rings it concerns, why the device needs a reset."""
        violation = self._found_violation()
        if violation is None:
            return
        self._on_violation(violation)
        for ring in self._rings():
            if ring.is_served and violation.queue in (None, ring.number):
                ring.fail(str(violation))
