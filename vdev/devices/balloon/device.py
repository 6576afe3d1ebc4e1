"""The balloon device: its configuration space and queues, and which part serves which."""

from typing import ClassVar

import construct

from spec.balloon import (
    CONFIG,
    CONFIG_WITH_INTERVAL,
    BalloonFeature,
    BalloonQueue,
    HintAnswer,
    QueueNumbering,
    StatisticTag,
    queue_numbers,
)
from spec.device import DeviceId, DeviceStatus, Feature, feature_mask
from spec.device_state import BALLOON_STATE, NO_BUFFER
from vdev.config_space import ConfigSpace
from vdev.device import RING_FEATURES, Device, QueueFactory
from vdev.devices.balloon.hint_states import HintState, shown_command_id
from vdev.devices.balloon.hinting import Hinting
from vdev.devices.balloon.inflation import Inflation
from vdev.devices.balloon.reporting import Reporting
from vdev.devices.balloon.statistics import Statistics
from vdev.errors import SavedStateError
from vdev.events import SILENT, Emitter
from vdev.memory import GuestMemory, Region
from vdev.virtqueue.factory import make_device_queue
from vdev.virtqueue.queue import DeviceQueue

__all__ = ["BALLOON_FEATURES", "BalloonDevice"]

BALLOON_FEATURES = feature_mask(*BalloonFeature)
"""Every feature of the balloon's own."""

_QUEUE_SIZE = 256


class BalloonDevice(Device):
    """A memory balloon with inflation, statistics, free page hinting, free page reporting and page poison.

    `numbering` says which queue has which number: FIXED is the text's, COMPACT what Linux and QEMU use between each
    other; the driver must use the same. `features` is a mask of the balloon's own features to offer.

    Two things are this project's own, for a driver that was told of them: hints as `hint_answer` has them, and with
    `refresh_interval_field` a configuration space with CONFIG_WITH_INTERVAL's field.
    """

    device_id: ClassVar[int] = DeviceId.BALLOON
    name = "balloon"
    queue_sizes = (_QUEUE_SIZE,) * len(BalloonQueue)
    type_features = tuple(BalloonFeature)
    config_layout: ClassVar[construct.Construct] = CONFIG

    def __init__(
        self,
        memory: GuestMemory,
        *,
        events: Emitter = SILENT,
        numbering: QueueNumbering = QueueNumbering.FIXED,
        features: int = BALLOON_FEATURES,
        make_queue: QueueFactory = make_device_queue,
        hint_answer: HintAnswer = HintAnswer.LIST,
        refresh_interval_field: bool = False,
    ) -> None:
        super().__init__(memory, events=events, make_queue=make_queue)
        self.offered_features = RING_FEATURES | features
        if hint_answer is HintAnswer.BITMAP:
            # The buffer for requests is kept while others behind it go back.
            self.offered_features &= ~feature_mask(Feature.IN_ORDER)
        if refresh_interval_field:
            self._config = ConfigSpace(CONFIG_WITH_INTERVAL)
        self._has_interval = refresh_interval_field
        self.numbering = numbering
        self.inflation = Inflation(memory, events=events)
        self.memory_statistics = Statistics(memory, events=events)
        self.hinting = Hinting(memory, self, answer=hint_answer, events=events)
        self.reporting = Reporting(memory, events=events)
        self._roles = self._queue_roles(self.offered_features)

    # What the host asks for

    @property
    def statistics(self) -> dict[StatisticTag, int]:
        """The last values that the guest gave: bytes or counts, as the text says for each tag."""
        return self.memory_statistics.values

    @property
    def actual(self) -> int:
        """Pages that the driver says are in the balloon."""
        return int(self.config["actual"])

    def set_target(self, pages: int) -> None:
        """Ask the driver to make the balloon `pages` pages of 4096 bytes large."""
        self.change_config(num_pages=pages)

    def request_statistics(self) -> bool:
        """Ask the driver for new statistics; false if it has not yet answered the last request, or never will.

        Not while the VM is stopped: it writes to the ring.
        """
        queue = self._queue_of(BalloonQueue.STATISTICS)
        if queue is None or not self.running or not self.memory_statistics.release(queue):
            return False
        self.call_driver(queue.number)
        return True

    def poll_hints(self) -> bool:
        """Serve the free page queue now, whether or not the driver kicked; true if there is more: call again later."""
        queue = self.hint_queue()
        return queue is not None and self.running and super().queue_notify(queue.number)

    def queue_notify(self, number: int) -> bool:
        """Handle a kick as every device does, but not one for hints that the host polls for."""
        if self.hinting.polled and self._roles.get(number) is BalloonQueue.FREE_PAGE:
            return False
        return super().queue_notify(number)

    # What hinting asks for

    def hints_are_usable(self) -> bool:
        """Say whether the driver negotiated hints, the device works, and no content of free pages is relied upon."""
        return self.running and self.has_feature(BalloonFeature.FREE_PAGE_HINT) and not self._free_pages_are_poisoned()

    def hint_queue(self) -> DeviceQueue | None:
        """Return the free page queue, None while it is not ready."""
        return self._queue_of(BalloonQueue.FREE_PAGE)

    def show_command_id(self, shown_id: int, is_news: bool) -> None:
        """Store free_page_hint_cmd_id; tell the driver if `is_news`."""
        store = self.change_config if is_news else self.store_config
        store(free_page_hint_cmd_id=shown_id)

    def show_refresh_interval(self, milliseconds: int) -> None:
        """Store free_page_hint_interval and tell the driver. Raises ValueError if there is no such field."""
        if not self._has_interval:
            raise ValueError("this balloon was made without a field for the interval")
        self.change_config(free_page_hint_interval=milliseconds)

    # What the base asks for

    def negotiated(self) -> None:
        """Number the queues as the features have it."""
        self._roles = self._queue_roles(self.features)

    def queue_size_max(self, number: int) -> int:
        """Return the largest size of queue `number`, 0 where its feature was not negotiated."""
        return _QUEUE_SIZE if number in self._roles else 0

    def queue_name(self, number: int) -> str:
        """Return the queue's role under the features that are negotiated, or offered so far."""
        role = self._roles.get(number)
        return "" if role is None else role.name.lower().replace("_", " ")

    def writable_fields(self) -> frozenset[str]:
        """`actual` always; `poison_val` when negotiated and before DRIVER_OK ("Page Poison")."""
        if self.has_feature(BalloonFeature.PAGE_POISON) and not self.status & DeviceStatus.DRIVER_OK:
            return frozenset({"actual", "poison_val"})
        return frozenset({"actual"})

    def handle_queue(self, number: int) -> None:
        """Serve one queue."""
        queue = self.queues[number]
        match self._roles[number]:
            case BalloonQueue.INFLATE:
                for chain in self.chains(number):
                    self.inflation.inflate(chain, queue)
            case BalloonQueue.DEFLATE:
                for chain in self.chains(number):
                    self.inflation.deflate(chain, queue)
            case BalloonQueue.STATISTICS:
                for chain in self.chains(number):
                    self.memory_statistics.handle(chain, queue)
            case BalloonQueue.FREE_PAGE:
                self.hinting.handle(queue)
            case BalloonQueue.REPORTING:
                self.reporting.handle(queue, poisoned=self._free_pages_are_poisoned())

    def queue_stopped(self, number: int) -> None:
        """Forget the buffers that were kept of a queue with it."""
        if self._roles.get(number) is BalloonQueue.STATISTICS:
            self.memory_statistics.forget_buffer()
        elif self._roles.get(number) is BalloonQueue.FREE_PAGE:
            self.hinting.forget_buffers()

    def memory_replaced(self, before: tuple[Region, ...]) -> None:
        """Number what is in the balloon anew."""
        self.inflation.renumber(before)

    def reset(self) -> None:
        """Forget the driver: the balloon is empty, hints stopped; the host's target stays."""
        super().reset()
        self._roles = self._queue_roles(self.offered_features)
        self.inflation.reset()
        self.hinting.reset()
        self.config["actual"] = self.config["poison_val"] = 0
        if self._has_interval:
            self.config["free_page_hint_interval"] = 0
        self.config["free_page_hint_cmd_id"] = shown_command_id(HintState.STOP, 0)

    def save_specific(self) -> bytes:
        """Return a BALLOON_STATE of `spec.device_state`."""
        kept_head = self.memory_statistics.kept_head
        state: bytes = BALLOON_STATE.build(
            {
                "hint_state": int(self.hinting.state),
                "command_id": self.hinting.command_id,
                "statistics_head": NO_BUFFER if kept_head is None else kept_head,
                "inflated": self.inflation.save(),
            }
        )
        return state

    def restore_specific(self, state: bytes) -> None:
        """Go on from a BALLOON_STATE."""
        try:
            saved = BALLOON_STATE.parse(state)
            self.hinting.state = HintState(saved.hint_state)
        except (construct.ConstructError, ValueError) as error:
            raise SavedStateError(f"the saved balloon cannot be read: {error}") from error
        self.hinting.command_id = saved.command_id
        if (hint_queue := self.hint_queue()) is not None:
            # Whatever the device that was saved had in hand, this one knows only that it is to go back.
            self.hinting.restore(hint_queue.save().outstanding)
        if saved.statistics_head != NO_BUFFER:
            queue = self._queue_of(BalloonQueue.STATISTICS)
            if queue is None or saved.statistics_head not in queue.save().outstanding:
                raise SavedStateError("the saved balloon keeps a statistics buffer that its queue does not know")
            self.memory_statistics.kept_head = saved.statistics_head
        if not self.inflation.restore(saved.inflated):
            raise SavedStateError(f"the saved balloon is not one of {self.memory.page_count} pages of RAM")

    # Inside

    def _queue_roles(self, features: int) -> dict[int, BalloonQueue]:
        return {number: role for role, number in queue_numbers(features, self.numbering).items()}

    def _queue_of(self, wanted: BalloonQueue) -> DeviceQueue | None:
        for number, role in self._roles.items():
            if role is wanted:
                return self.queues.get(number)
        return None

    def _free_pages_are_poisoned(self) -> bool:
        return self.has_feature(BalloonFeature.PAGE_POISON) and bool(self.config["poison_val"])
