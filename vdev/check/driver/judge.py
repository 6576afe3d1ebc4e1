"""The judge of a driver: what is done in a run, and what came of it."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import vdev
from vdev.check.driver.ledger import Ledger
from vdev.check.driver.plan import Start, plan_starts
from vdev.check.driver.scratch_disk import scratch_disk
from vdev.check.driver.sitting import DeviceMaker, Sitting
from vdev.check.result import CaseResult, Report
from vdev.devices.kind import Carrier
from vdev.devices.registry import device_kind
from vdev.memory import GuestMemory

__all__ = ["Judge"]


class Judge:
    """One run about the driver of one type of device, behind `carrier`.

    `offered` is a mask of what the driver is offered at most; `only` as `plan_starts` has it; `options` are the device
    type's. `make_device` makes another device than they say, of a type that need not have a name here. `repeat` gives
    the command for a case's name.

    Raises UserError for a type, a name or options that do not exist.
    """

    def __init__(
        self,
        device_type: str,
        carrier: Carrier,
        *,
        offered: int = -1,
        only: Iterable[str] = (),
        options: Mapping[str, Any] | None = None,
        make_device: DeviceMaker | None = None,
        patience: float = 5.0,
        seed: int = 0,
        repeat: Callable[[str], str] = lambda _: "",
    ) -> None:
        if make_device is None:
            make_device = _maker(device_type, carrier, options)
        self.device_type = device_type
        self.carrier = carrier
        self.seed = seed
        self.patience = patience
        self.ledger = Ledger(device_type, carrier, repeat)
        self.plan = plan_starts(device_type, carrier, offered=offered, only=only)
        self._make_device = make_device

    def sit(self, start: Start, memory: GuestMemory, carrier: Carrier, clock: Callable[[], float]) -> Sitting:
        """Return the sitting for one start of the driver, whose RAM is `memory`; the clock's unit is the second."""
        return Sitting(
            self.device_type,
            self._make_device,
            memory,
            carrier,
            start.games,
            self.plan.rules,
            self.ledger,
            variant=start.variant,
            offered=start.offered,
            clock=clock,
            patience=self.patience,
            seed=self.seed,
        )

    def cases(self) -> tuple[CaseResult, ...]:
        """Return all results so far."""
        return self.ledger.cases(self.plan.rules)

    def report(self, subject: Mapping[str, str], seconds: float) -> Report:
        """Return the whole run's report; `subject` says in a few words what was judged."""
        return Report(
            "driver", {"type": self.device_type, **subject}, self.seed, self.cases(), seconds, vdev.__version__
        )


def _maker(device_type: str, carrier: Carrier, options: Mapping[str, Any] | None) -> DeviceMaker:
    if device_type == "block" and not options:
        return scratch_disk
    kind = device_kind(device_type)
    return lambda memory, events: kind.make(memory, options, carrier=carrier, events=events)
