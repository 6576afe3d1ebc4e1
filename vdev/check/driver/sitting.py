"""One start of a driver, from its first access to the end of the last game: rules are fed, games are played."""

from collections import deque
from collections.abc import Callable, Iterable
from random import Random

from spec.device import Feature, feature_mask, feature_names
from vdev.check.driver.game import Game, GameKind, Stage
from vdev.check.driver.judged_queue import JudgedQueue
from vdev.check.driver.ledger import Ledger
from vdev.check.driver.observation import (
    Called,
    DeviceWasReset,
    FeaturesAgreed,
    Kicked,
    Observation,
    QueueAreas,
    QueueLeft,
    QueueMadeReady,
    Rested,
    RingObservation,
)
from vdev.check.driver.packed_watch import PackedWatch
from vdev.check.driver.picture import Picture
from vdev.check.driver.rule import Rule, RuleKind
from vdev.check.driver.split_watch import SplitWatch
from vdev.check.driver.stir import stirrer_of
from vdev.check.evidence import Evidence
from vdev.check.registry import RingFormat
from vdev.check.verdict import Failed, Inconclusive, Judgement, NotApplicable, TargetCrashed
from vdev.device import Device
from vdev.devices.kind import Carrier
from vdev.events import Emitter, EventStream, Record
from vdev.memory import GuestMemory
from vdev.virtqueue.factory import make_device_queue
from vdev.virtqueue.queue import DeviceQueue, QueueAddresses

__all__ = ["DeviceMaker", "Sitting"]

DeviceMaker = Callable[[GuestMemory, Emitter], Device]

_MESSAGE_FEATURES = (1 << 64) - 1
"""What a vhost-user message has room for."""
_EVENTS_KEPT = 24
BOOT_PATIENCE = 120.0
"""Seconds that may pass until a driver that is reached through a front end sets up its first queue."""
_STUCK = 4
"""So many patiences a driver may be busy with other things without getting on with a game."""


class Sitting:
    """`games` are played one after the other with the driver of a device that offers what the first of them says.

    `variant` says in a word what is special about this start. `clock` gives seconds; `patience` is how many of them a
    driver may be silent. Whoever carries the device tells what it sees with `see`, and calls `turn` whenever nothing
    else happens.
    """

    def __init__(
        self,
        device_type: str,
        make_device: DeviceMaker,
        memory: GuestMemory,
        carrier: Carrier,
        games: Iterable[GameKind],
        rules: Iterable[RuleKind],
        ledger: Ledger,
        *,
        variant: str,
        offered: int | None,
        clock: Callable[[], float],
        patience: float,
        seed: int,
    ) -> None:
        self._games = deque(games)
        self._ledger = ledger
        self._variant = variant
        self._clock = clock
        self._patience = patience
        self.stream = stream = EventStream(clock)
        self._events: deque[Record] = deque(maxlen=_EVENTS_KEPT)
        stream.subscribe(self._events.append)
        self.emitter = stream.emitter("device")
        self.device = device = make_device(memory, self.emitter)
        self.device.make_queues_with(self._make_queue)
        first = self._games[0].make
        device.offered_features = first.offers(device.offered_features & (-1 if offered is None else offered))
        if carrier is Carrier.VHOST_USER:
            device.offered_features &= _MESSAGE_FEATURES
        self.picture = Picture(
            carrier, memory, device_type, device.device_id, len(device.queue_sizes), device.offered_features
        )
        self.queues: dict[int, JudgedQueue] = {}
        self.stage = Stage(device, self.queues, self.picture, Random(f"{seed} {variant}"), variant)
        self._stirrer = stirrer_of(device, self.stage.random)
        self._rules = [
            kind.make(self.picture)
            for kind in rules
            if carrier in kind.carriers and (kind.types is None or device_type in kind.types)
        ]
        self._fed: dict[type[Observation], list[Rule]] = {}
        self._done: list[str] = []
        self._is_begun = False
        self.boot_patience = BOOT_PATIENCE
        """Seconds until a queue must be set up: a front end is there long before its guest has booted."""
        self.game: Game
        self._begin_game(self._games.popleft())

    @property
    def is_begun(self) -> bool:
        """Whether a driver set up a queue."""
        return self._is_begun

    @property
    def is_over(self) -> bool:
        """Whether every game was played."""
        return self._game_kind is None

    # What the carrier tells

    def see(self, seen: Observation) -> None:
        """Let game and rules see what the driver did or got."""
        if not isinstance(seen, Called):
            self._seen_at = self._clock()
            if self.picture.carrier is Carrier.MMIO or isinstance(seen, QueueMadeReady):
                self._is_begun = True
        self.game.see(seen)
        for rule in self._listeners(type(seen)):
            if isinstance(seen, RingObservation) and rule.kind.formats and seen.format not in rule.kind.formats:
                continue
            try:
                rule.handlers[type(seen)](rule, seen)
            except Judgement as judgement:
                self._rules.remove(rule)
                self._fed.clear()
                self._ledger.note_breach(rule.kind, self._case_variant(), judgement, self._evidence(judgement))
        if isinstance(seen, FeaturesAgreed):
            self._ledger.seen.agreements.add(seen.features)
        self.picture.note(seen)

    def _listeners(self, kind: type[Observation]) -> list[Rule]:
        if kind not in self._fed:
            self._fed[kind] = [rule for rule in self._rules if kind in rule.handlers]
        return list(self._fed[kind])

    def look(self, number: int) -> None:
        """Look at a queue's memory."""
        if number in self.queues:
            self.queues[number].watch.look()

    def note_kick(self, number: int, data: int | None) -> None:
        """The driver notifies; the device has not yet looked."""
        self.look(number)
        self.see(Kicked(number, data))

    def note_queues(self) -> None:
        """The driver may have stopped queues."""
        for number in list(self.queues):
            if number not in self.device.queues:
                del self.queues[number]
                self.see(QueueLeft(number))

    def note_reset(self) -> None:
        """The driver has reset the device."""
        self.note_queues()
        self.see(DeviceWasReset())

    def note_silence(self, *, certain: bool) -> None:
        """The driver does nothing before something happens to it."""
        for number in list(self.queues):
            self.look(number)
        self.see(Rested(certain))

    def wrap_calls(self) -> None:
        """Look on at the device's interrupts; whoever carries it has set where they go."""
        call, announce = self.device.call, self.device.announce_config

        def note_call(number: int) -> None:
            self.see(Called(number))
            call(number)

        def note_announcement() -> None:
            # A device that needs a reset says so in the same way.
            self.picture.status = int(self.device.status)
            self.see(Called(None))
            announce()

        self.device.call, self.device.announce_config = note_call, note_announcement

    def turn(self) -> None:
        """Nothing else happens: the game may act, and may be over."""
        self._watch_clock()
        if self.is_over:
            return
        if self.game.stirs:
            self._stirrer.turn()
        self.game.turn()
        for number, queue in list(self.queues.items()):
            if self.device.running and number in self.device.queues and not self.game.wants_kicks(queue):
                self.device.queue_notify(number)
        if self.game.finding is not None:
            self._end_game(self.game.finding)
        elif self.game.refused and not self.game.lets_go:
            self._end_game(self.game.overdue(self._patience))
        elif self.game.is_over:
            self._end_game(None)

    def note_refusal(self, why: str) -> None:
        """The driver does not use the device, or not any more, and said so."""
        self.game.refused = why

    def note_passed_over(self) -> None:
        """The driver found no device, and did not complain."""
        self.game.passed_over = True

    def driver_gone(self, why: str, *, crashed: bool) -> None:
        """The driver is not to be seen any more: it died of what it was given, or just ended."""
        if not self.is_over:
            self._end_game(TargetCrashed(why) if crashed else Inconclusive(why))
        self.close("the driver was gone")

    def close(self, why: str = "the driver was stopped") -> None:
        """Come to an end: rules are noted; what was not played is inconclusive."""
        while not self.is_over:
            self._end_game(Inconclusive(why))
        for rule in self._rules:
            self._ledger.note_rule(rule)
        self._rules.clear()
        self._fed.clear()

    # Games

    def _begin_game(self, kind: GameKind) -> None:
        self._game_kind: GameKind | None = kind
        self.game = kind.make(self.stage)
        self._began_at = self._seen_at = self._progress_at = self._clock()
        self._progress = 0
        self._done = [f"offered {', '.join(feature_names(self.device.offered_features, self.device.type_features))}"]
        self._done.append(f"game {kind.name}: {kind.summary}")
        self.game.begin()

    def _end_game(self, judgement: Judgement | None) -> None:
        kind = self._game_kind
        assert kind is not None
        self.game.end()
        seconds = self._clock() - self._began_at
        self._ledger.note_game(kind, self._variant, judgement, self._evidence(judgement), seconds)
        while self._games:
            following = self._games.popleft()
            if self._is_playable(following):
                self._begin_game(following)
                self._look_at_queues()
                return
        self._game_kind = None
        self.game = Game(self.stage)

    def _look_at_queues(self) -> None:
        """Have the device serve what came meanwhile, and ask for kicks as the new game has it."""
        for number in list(self.queues):
            if self.device.running and number in self.device.queues:
                self.device.queue_notify(number)

    def _is_playable(self, kind: GameKind) -> bool:
        missing = [bit for bit in kind.features if not self.picture.has(bit)]
        if missing:
            names = ", ".join(feature_names(feature_mask(*missing), self.device.type_features))
            self._ledger.note_game(kind, self._variant, NotApplicable(f"{names} was not agreed"), Evidence(), 0.0)
        return not missing

    def _watch_clock(self) -> None:
        if self.is_over:
            return
        now = self._clock()
        if not self._is_begun:
            self._progress_at = self._seen_at = now
            if now - self._began_at > self.boot_patience:
                self.close(f"no driver set up a queue within {self.boot_patience:g} s")
            return
        if self.game.progress != self._progress:
            self._progress, self._progress_at = self.game.progress, now
        is_silent = now - max(self._seen_at, self._progress_at) > self._patience
        if is_silent:
            self.note_silence(certain=False)
        if is_silent or now - self._progress_at > _STUCK * self._patience:
            self._end_game(self.game.overdue(self._patience))

    def _case_variant(self) -> str:
        name = self._game_kind.name if self._game_kind is not None else "afterwards"
        return f"{name}/{self._variant}" if self._variant else name

    def _evidence(self, judgement: Judgement | None) -> Evidence:
        done = tuple(self._done)
        if judgement is None:
            return Evidence(done)
        events = tuple(self._events)
        if not isinstance(judgement, Failed):
            return Evidence(done, events=events)
        return Evidence(done, judgement.expected, judgement.observed, judgement.shown, events)

    # Queues

    def _make_queue(
        self, memory: GuestMemory, number: int, addresses: QueueAddresses, features: int, events: Emitter
    ) -> DeviceQueue:
        areas = QueueAreas(*addresses)
        packed = bool(features >> Feature.RING_PACKED & 1)
        ring_format = RingFormat.PACKED if packed else RingFormat.SPLIT
        # Before the device refuses what cannot be.
        device_area = _bytes_at(memory, areas.device, 4)
        self._ledger.seen.formats.add(ring_format)
        self.see(QueueMadeReady(number, ring_format, areas, self.device.queue_size_max(number), device_area))
        inner = make_device_queue(memory, number, addresses, features, events)
        watch_type = PackedWatch if packed else SplitWatch
        watch = watch_type(
            memory,
            number,
            areas,
            self.see,
            event_idx=bool(features >> Feature.EVENT_IDX & 1),
            in_order=bool(features >> Feature.IN_ORDER & 1),
        )
        queue = JudgedQueue(inner, watch, features, lambda: self.game, self.see)
        before = self.queues.get(number)
        if before is not None:
            queue.held = before.held
        self.queues[number] = queue
        return queue


def _bytes_at(memory: GuestMemory, address: int, size: int) -> bytes:
    return memory.read(address, size) if memory.contains(address, size) else b""
