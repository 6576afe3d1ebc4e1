"""One schedule again, step by step."""

from vdev.errors import UserError
from vdev.race.rings.machine import Machine
from vdev.race.rings.schedule_file import RingSchedule
from vdev.race.rings.verdict import RingFinding, RingStep

__all__ = ["replay"]


def replay(schedule: RingSchedule) -> RingFinding | None:
    """Do exactly the steps of `schedule`; returns what they break, None if nothing.

    Raises UserError, with the step's place, where the two sides would do something else.
    """
    machine = Machine.of(schedule.scenario, schedule.model)
    state = machine.start
    steps: list[RingStep] = []
    for position, text in enumerate(schedule.steps):
        possible = {str(step): (step, after) for step, after in machine.steps(state)}
        if text not in possible:
            what = "or ".join(f"{known!r} " for known in possible) or "nothing "
            raise UserError(f"{schedule.place(position)}: {text!r} cannot be here; {what}can")
        step, state = possible[text]
        steps.append(step)
    broken = machine.broken(state, at_rest=not machine.moves(state))
    return RingFinding(schedule.scenario, schedule.model, tuple(steps), *broken) if broken else None
