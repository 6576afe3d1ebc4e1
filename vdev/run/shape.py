"""What a machine is made of, as both ends of a migration must know it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from host_migrator.strategies import Refresh, refresh_of
from spec.balloon import BalloonFeature, HintAnswer, QueueNumbering
from spec.device import Feature, feature_mask
from vdev.devices.balloon import BalloonDevice
from vdev.devices.kind import Carrier
from vdev.devices.registry import device_kind
from vdev.errors import VdevError
from vdev.events import EventStream
from vdev.machine import Machine
from vdev.memory import GuestMemory
from vdev.notify import Doorbell
from vdev.run.options import MigrateOptions
from vdev.schedule import Schedule
from vdev.vhost_user.slot import Slot

__all__ = ["MachineShape", "build_machine", "guest_config", "UnknownMachine", "ram_regions"]

_BELOW_4_GIB = 3 << 30
_ABOVE_4_GIB = 4 << 30
_ALL_FEATURES = (1 << 128) - 1

_ALWAYS_OFFERED = feature_mask(
    BalloonFeature.MUST_TELL_HOST,
    BalloonFeature.STATS_VQ,
    BalloonFeature.DEFLATE_ON_OOM,
    BalloonFeature.FREE_PAGE_HINT,
)


class UnknownMachine(VdevError):
    """The source describes a machine that this destination cannot build."""


@dataclass(frozen=True)
class MachineShape:
    """The parts of a machine that the destination builds again: JSON-ready.

    `regions` are (guest-physical address, bytes); `ioeventfd` says whether QueueNotify rings an eventfd or is an exit;
    `features` is the mask of its own features that the balloon offers; `numbering` is how its queues are numbered.
    `transport` is mmio or vhost-user. `hint_answer` is how the balloon is told of free pages, list or bitmap, and
    `refresh_interval` whether it has a field that says how often.
    """

    regions: tuple[tuple[int, int], ...]
    ioeventfd: bool = True
    features: int = _ALWAYS_OFFERED
    numbering: str = QueueNumbering.FIXED.value
    transport: str = Carrier.MMIO.value
    hint_answer: str = HintAnswer.LIST.value
    refresh_interval: bool = False

    @classmethod
    def of_options(cls, options: MigrateOptions) -> "MachineShape":
        """Return the shape that `options` ask for."""
        features = _ALWAYS_OFFERED
        if options.free_page_reporting:
            features |= feature_mask(BalloonFeature.PAGE_REPORTING)
        numbering = device_kind("balloon").default("numbering", Carrier(options.transport))
        return cls(
            ram_regions(options.ram_size),
            options.has_ioeventfd,
            features,
            numbering,
            options.transport,
            options.answer,
            refresh_of(options.strategy) is Refresh.INTERVAL,
        )

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return asdict(self)

    @classmethod
    def from_json(cls, mapping: dict[str, Any]) -> "MachineShape":
        """Return what `to_json` gave. Raises UnknownMachine for anything else."""
        try:
            regions = tuple((int(address), int(size)) for address, size in mapping["regions"])
            shape = cls(**{**mapping, "regions": regions})
            QueueNumbering(shape.numbering)
            Carrier(shape.transport)
            HintAnswer(shape.hint_answer)
        except (KeyError, TypeError, ValueError) as error:
            raise UnknownMachine(f"the source describes a machine that this version cannot build: {error}") from error
        return shape


def ram_regions(size: int) -> tuple[tuple[int, int], ...]:
    """Return where RAM of `size` bytes lies: below 3 GiB, the rest above 4 GiB, as on a PC."""
    if size <= _BELOW_4_GIB:
        return ((0, size),)
    return ((0, _BELOW_4_GIB), (_ABOVE_4_GIB, size - _BELOW_4_GIB))


def build_machine(
    shape: MachineShape,
    memory: GuestMemory,
    schedule: Schedule,
    events: EventStream,
    make_doorbell: Callable[[], Doorbell],
    *,
    name: str,
) -> tuple[Machine, BalloonDevice]:
    """Return a machine of this shape, without a vCPU, and its balloon: on the bus, or in a vhost-user slot."""
    balloon = BalloonDevice(
        memory,
        features=shape.features,
        numbering=QueueNumbering(shape.numbering),
        events=events.emitter(f"{name}/balloon"),
        hint_answer=HintAnswer(shape.hint_answer),
        refresh_interval_field=shape.refresh_interval,
    )
    on_bus = shape.transport == Carrier.MMIO.value
    machine = Machine(
        memory,
        [balloon] if on_bus else [],
        schedule,
        events,
        make_doorbell=make_doorbell if shape.ioeventfd else None,
        slots=[] if on_bus else [Slot(balloon)],
        description=shape.to_json(),
        name=name,
    )
    return machine, balloon


def _ring_features(options: MigrateOptions) -> int:
    """Return the mask of what the guest's driver may accept of the features that are no device type's own."""
    unwanted = []
    if options.ring != "packed":
        unwanted.append(Feature.RING_PACKED)
    if not options.in_order:
        unwanted.append(Feature.IN_ORDER)
    return _ALL_FEATURES & ~feature_mask(*unwanted)


def guest_config(options: MigrateOptions, shape: MachineShape, machine: Machine) -> dict[str, Any]:
    """Return what the guest is booted with."""
    return {
        "workload": options.workload,
        "files": str(options.files) if options.files else None,
        "rate": options.rate,
        "seed": options.seed,
        "mmio_addresses": machine.bus.addresses,
        "wanted_features": shape.features,
        "ring_features": _ring_features(options),
        "numbering": shape.numbering,
        "slot_numbering": shape.numbering,
        "hint_answer": options.answer,
        "hint_holds": options.guest_holds,
        "hint_refresh": refresh_of(options.strategy).value,
    }
