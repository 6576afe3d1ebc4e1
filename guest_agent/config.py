"""What a guest is booted with."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from guest_agent.drivers.balloon.behaviour import (
    MAX_BATCH,
    HintAnswer,
    HintBehaviour,
    HintCollecting,
    HintHolding,
    HintRefresh,
    StartBuffer,
)
from guest_agent.drivers.driver import DriverOptions
from guest_agent.page_database import MAX_ORDER
from guest_agent.workload import WORKLOADS, WorkloadOptions
from spec.balloon import QueueNumbering
from vdev.errors import UserError

__all__ = ["GuestConfig"]

_ALL_FEATURES = (1 << 128) - 1


@dataclass(frozen=True)
class GuestConfig:
    """All of it is plain JSON. Raises UserError for a value that makes no sense.

    `rate` is in operations per second, 0 for a guest that only serves its devices. The water marks are parts of RAM
    (see WorkloadOptions). `warm_up` makes the guest begin as one that was up for long. `poison_value` is the 32-bit
    pattern for free pages, None for no poison. `mmio_addresses` is where the bus has devices; the features are masks of
    what drivers may use (see DriverOptions), None for all they know. `numbering` is for devices on the bus,
    `slot_numbering` for those that vhost-user back ends serve. What begins with `hint_` says how a balloon's driver
    gives hints, as HintBehaviour names it.
    """

    workload: str = "churn"
    files: str | None = None
    rate: float = 500.0
    seed: int = 0
    warm_up: bool = True
    low_water: float = 0.25
    high_water: float = 0.45
    full_water: float = 0.60
    poison_value: int | None = None
    mmio_addresses: tuple[int, ...] = ()
    wanted_features: int | None = None
    ring_features: int | None = None
    queue_size: int = 128
    numbering: str = QueueNumbering.FIXED.value
    slot_numbering: str = QueueNumbering.COMPACT.value
    hint_answer: str = HintAnswer.LIST.value
    hint_holds: str = HintHolding.UNTIL_QUEUED.value
    hint_collects: str = HintCollecting.AFTER_ANNOUNCING.value
    hint_start_buffer: str = StartBuffer.FRESH.value
    hint_refresh: str = HintRefresh.NEVER.value
    hint_order: int = MAX_ORDER
    hint_batch: int = MAX_BATCH
    hint_single_steps: bool = False

    def __post_init__(self) -> None:
        if self.workload not in WORKLOADS:
            raise UserError(f"there is no workload {self.workload!r}; choose one of {', '.join(WORKLOADS)}")
        if not 0 <= self.rate < math.inf:
            raise UserError(f"a rate of {self.rate} operations per second makes no sense; give 0 or more")
        if self.seed < 0:
            raise UserError(f"the seed {self.seed} is negative; give 0 or more")
        if not 0 < self.low_water < self.high_water <= self.full_water < 1:
            raise UserError("water marks must rise from above 0 to below 1: low, high, full")
        if self.poison_value is not None and not 0 <= self.poison_value < 1 << 32:
            raise UserError(f"the poison value {self.poison_value:#x} does not fit 32 bits")
        for numbering in (self.numbering, self.slot_numbering):
            if numbering not in {known.value for known in QueueNumbering}:
                raise UserError(f"there is no queue numbering {numbering!r}")
        _ = self.hint_behaviour  # raises for what cannot be

    @property
    def workload_options(self) -> WorkloadOptions:
        """What the workload is made with."""
        files = Path(self.files) if self.files is not None else None
        return WorkloadOptions(self.low_water, self.high_water, self.full_water, files)

    @property
    def hint_behaviour(self) -> HintBehaviour:
        """How a balloon's driver gives hints."""
        return HintBehaviour.of(
            answer=self.hint_answer,
            holds=self.hint_holds,
            collects=self.hint_collects,
            start_buffer=self.hint_start_buffer,
            refresh=self.hint_refresh,
            order=self.hint_order,
            batch=self.hint_batch,
            single_steps=self.hint_single_steps,
        )

    @property
    def device_options(self) -> DriverOptions:
        """What drivers of devices on the bus are started with."""
        return DriverOptions(
            _ALL_FEATURES if self.wanted_features is None else self.wanted_features,
            _ALL_FEATURES if self.ring_features is None else self.ring_features,
            self.queue_size,
            QueueNumbering(self.numbering),
            self.hint_behaviour,
        )

    @property
    def slot_options(self) -> DriverOptions:
        """What drivers of devices in vhost-user slots are started with."""
        return replace(self.device_options, numbering=QueueNumbering(self.slot_numbering))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return {**asdict(self), "mmio_addresses": list(self.mmio_addresses)}

    @classmethod
    def from_json(cls, mapping: Mapping[str, Any]) -> "GuestConfig":
        """Return the configuration that `to_json` gave; what is not named has its default.

        Raises UserError for a name that is none, or a value that cannot be.
        """
        if unknown := set(mapping) - {field.name for field in fields(cls)}:
            raise UserError(f"a guest has no setting {', '.join(sorted(unknown))}")
        try:
            return cls(**{**mapping, "mmio_addresses": tuple(mapping.get("mmio_addresses", ()))})
        except TypeError as error:
            raise UserError(f"a guest's settings have a value of the wrong kind: {error}") from None
