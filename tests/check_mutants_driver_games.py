"""Drivers that cannot live with what a device may do: games with rings, features, status and reset."""

from check_driver_mutants import SPLIT, DriverMutant
from check_driver_setup import Rings
from check_mutants_driver_start import with_transport

from guest_agent.mmio import MmioDriver
from spec.device import Feature, feature_mask
from spec.mmio import Register
from vdev.errors import DeviceViolation

NO_EVENTS = ~feature_mask(Feature.EVENT_IDX)
NOT_IN_ORDER = ~feature_mask(Feature.IN_ORDER)


class Tires(Rings):
    """Uses some buffers, and no more."""

    def step(self):
        busy = super().step()
        if self.count > 8:
            self.gave_up_why = "it had enough"
        return busy


class Synchronous(Rings):
    """Takes a device for dead that has used nothing when a notification returns."""

    def _work(self, number):
        busy = super()._work(number)
        if self.out[number] and not self.queues[number].has_used():
            self.gave_up_why = "the device does not answer"
        return busy


class KnowsOneOrder(Rings):
    """Takes a buffer for wrong that comes before one that was posted earlier."""

    def set_up(self, number):
        queue = super().set_up(number)
        tokens = []
        add, collect = queue.add, queue.collect

        def adding(readable, writable, token):
            tokens.append(token)
            return add(readable, writable, token)

        def collecting():
            used = collect()
            if used is not None and used.token != tokens.pop(0):
                self.gave_up_why = "a buffer is missing"
            return used

        queue.add, queue.collect = adding, collecting
        return queue


def publish_aloud(self, queue):
    queue.publish()
    if not queue.should_kick():
        raise DeviceViolation("none", "the device does not want to know")
    self.notify(queue.notification_data() if queue.features >> Feature.NOTIFICATION_DATA & 1 else queue.number)


class MustBeHeard(with_transport(publish=publish_aloud)):
    """Takes a device for dead that wants no notification of new buffers."""

    def step(self):
        try:
            return super().step()
        except DeviceViolation as violation:
            self.gave_up_why = violation.message
            return False


class SeesNoBreakdown(with_transport(needs_reset=False)):
    """Waits for ever for a device that needs a reset."""


def reset_at_once(self):
    self.write(Register.STATUS, 0)
    if self.read(Register.STATUS):
        raise DeviceViolation("none", "the device is not reset")


def reset_queue_at_once(self, number):
    self.write(Register.QUEUE_SEL, number)
    self.write(Register.QUEUE_RESET, 1)
    self.read(Register.QUEUE_RESET)


def takes_only_together(bit, *others):
    """A driver that does not take this feature without the others."""

    def negotiate(self, wanted, *, required=()):
        offered = self.offered_features()
        alone = offered >> bit & 1 and not all(offered >> other & 1 for other in others)
        return MmioDriver.negotiate(self, wanted, required=(*required, *others) if alone else required)

    return with_transport(negotiate=negotiate)


def refuses_order_platform(self, wanted, *, required=()):
    if self.offered_features() >> Feature.ORDER_PLATFORM & 1:
        raise self.fail("there is no platform")
    return MmioDriver.negotiate(self, wanted, required=required)


def only(bit, *others):
    name = bit.name.lower().replace("_", "-")
    return DriverMutant(
        f"{name}-not-alone",
        {f"game.only-{name}"},
        takes_only_together(bit, *others),
        games=("plain", "bare", f"only-{name}"),
    )


MUTANTS = [
    DriverMutant("gives-up-for-no-reason", {"game.plain"}, Tires),
    DriverMutant("answers-are-awaited-at-once", {"game.late"}, Synchronous, games=("plain", "late")),
    DriverMutant("no-answer-is-no-device", {"game.never"}, Synchronous, games=("plain", "never")),
    DriverMutant(
        "first-come-first-served",
        {"game.one-kept"},
        KnowsOneOrder,
        offered=NOT_IN_ORDER,
        games=("plain", "late", "one-kept"),
    ),
    DriverMutant(
        "notifications-must-be-wanted",
        {"game.no-kicks"},
        MustBeHeard,
        offered=NO_EVENTS,
        formats=SPLIT,
        games=("plain", "no-kicks"),
    ),
    DriverMutant("each-event-must-be-wanted", {"game.kick-later"}, MustBeHeard, games=("plain", "kick-later")),
    DriverMutant(
        "reset-takes-no-time", {"game.slow-reset"}, with_transport(reset=reset_at_once), games=("slow-reset",)
    ),
    DriverMutant(
        "queue-reset-takes-no-time",
        {"mmio.queue-reset-is-read-back"},
        with_transport(reset_queue=reset_queue_at_once),
        games=("slow-reset",),
    ),
    DriverMutant("breakdown-not-seen", {"game.needs-reset"}, SeesNoBreakdown, games=("plain", "needs-reset")),
    DriverMutant(
        "order-platform-refused",
        {"game.order-platform"},
        with_transport(negotiate=refuses_order_platform),
        games=("plain", "order-platform"),
    ),
    only(Feature.EVENT_IDX, Feature.INDIRECT_DESC),
    only(Feature.INDIRECT_DESC, Feature.EVENT_IDX),
    only(Feature.IN_ORDER, Feature.INDIRECT_DESC),
    only(Feature.NOTIFICATION_DATA, Feature.EVENT_IDX),
    only(Feature.RING_RESET, Feature.IN_ORDER),
]
