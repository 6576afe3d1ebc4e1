"""The device's side of a queue, as the judge has it: a watch looks at each step, a game says when buffers go back."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from spec.device import Feature
from vdev.check.driver.observation import DeviceWrote, KickWish, KickWished, Observation
from vdev.check.driver.packed_watch import PackedWatch
from vdev.check.driver.split_watch import SplitWatch
from vdev.memory import GuestMemory
from vdev.virtqueue.chain import Chain, ChainBatch
from vdev.virtqueue.queue import DeviceQueue, QueueState

if TYPE_CHECKING:
    from vdev.check.driver.game import Game

__all__ = ["JudgedQueue", "Spent"]

Spent = tuple[int, int]
"""A chain that the device is done with: its head, and the bytes written."""


class JudgedQueue:
    """`inner` with a watch; `game` says who decides at this moment. See `DeviceQueue` for what each method promises.

    What the device pushes is handed to the game, which gives it back at once (`release`) or keeps it (`hold`).
    """

    def __init__(
        self,
        inner: DeviceQueue,
        watch: SplitWatch | PackedWatch,
        features: int,
        game: "Callable[[], Game]",
        tell: Callable[[Observation], None],
    ) -> None:
        self.inner = inner
        self.watch = watch
        self.number = inner.number
        self.size = inner.size
        self.in_order = bool(features >> Feature.IN_ORDER & 1)
        self.event_idx = bool(features >> Feature.EVENT_IDX & 1)
        self.held: list[Spent] = []
        """Chains that the device is done with and the driver has not got back, in that order."""
        self._game = game
        self._tell = tell

    # What games do

    def hold(self, spent: Sequence[Spent]) -> None:
        """Keep chains for later."""
        self.held.extend(spent)

    def release(self, spent: Sequence[Spent]) -> None:
        """Give chains back now, so that the driver sees all or none of them. Call the driver afterwards."""
        if not spent:
            return
        self.watch.look()
        heads, sizes = [head for head, _ in spent], [size for _, size in spent]
        if len(spent) == 1:
            self.inner.push(heads[0], sizes[0])
        else:
            self.inner.push_batch(np.array(heads, np.int64), np.array(sizes, np.int64))
        self.watch.note_given_back(heads, sizes)

    def take_held(self) -> list[Spent]:
        """Take out everything that is held, to give it back otherwise."""
        spent, self.held = self.held, []
        return spent

    def release_held(self, order: Sequence[int] | None = None) -> int:
        """Give everything that is held back, in this order of places in `held`, and return how many they were."""
        spent, self.held = self.held, []
        self.release(spent if order is None else [spent[place] for place in order])
        return len(spent)

    def write(self, memory: GuestMemory, pieces: Sequence[tuple[int, bytes]]) -> None:
        """Write into guest RAM that requests name, (address, bytes) each. Raises GuestAddressError."""
        self.watch.look()
        for address, data in pieces:
            memory.write(address, data)
            self._tell(DeviceWrote(self.number, self.watch.format, address, len(data)))

    def ask_for_kick_at(self, ahead: int) -> None:
        """Want one notification, when `ahead` more entries than now are available. Needs EVENT_IDX."""
        self.watch.look()
        self.watch.ask_for_kick_at(ahead)
        self._tell(KickWished(self.number, self.watch.format, KickWish.AT_LATER, ahead))

    # What the device does

    def has_available(self) -> bool:
        """As the inner queue's."""
        return self.inner.has_available()

    def pop(self) -> Chain | None:
        """As the inner queue's."""
        self.watch.look()
        chain = self.inner.pop()
        self.watch.note_taken(chain is not None)
        return chain

    def pop_batch(self, limit: int | None = None) -> ChainBatch:
        """As the inner queue's."""
        self.watch.look()
        batch = self.inner.pop_batch(limit)
        self.watch.note_taken(len(batch))
        return batch

    def push(self, head: int, written_size: int) -> None:
        """Be done with a chain."""
        self._game().give_back(self, [(head, written_size)])

    def push_batch(self, heads: npt.NDArray[np.int64], written_sizes: npt.NDArray[np.int64]) -> None:
        """Be done with several chains."""
        if len(heads):
            self._game().give_back(self, list(zip(heads.tolist(), written_sizes.tolist(), strict=True)))

    def should_call(self) -> bool:
        """As the inner queue's."""
        return self.inner.should_call()

    def disable_kicks(self) -> None:
        """As the inner queue's."""
        self.watch.look()
        self.inner.disable_kicks()
        self._tell(KickWished(self.number, self.watch.format, KickWish.NEVER, 0))

    def enable_kicks(self) -> bool:
        """As the inner queue's, or not, as the game has it."""
        if not self._game().wants_kicks(self):
            return self.inner.has_available()
        there_is_more = self.inner.enable_kicks()
        wish = KickWish.AT_NEXT if self.event_idx else KickWish.ALWAYS
        self._tell(KickWished(self.number, self.watch.format, wish, 1))
        return there_is_more

    def ring_base(self) -> int:
        """As the inner queue's; nothing is held any more, as a ring that stops has nothing under way."""
        self.release_held()
        self.watch.look()
        return self.inner.ring_base()

    def start_from(self, base: int) -> None:
        """As the inner queue's."""
        self.inner.start_from(base)
        self.watch.begin_at(base)

    def save(self) -> QueueState:
        """As the inner queue's."""
        return self.inner.save()

    def restore(self, state: QueueState) -> None:
        """As the inner queue's; the watch knows of no chain that was out before."""
        self.inner.restore(state)
        self.watch.begin_at(self.inner.ring_base())
