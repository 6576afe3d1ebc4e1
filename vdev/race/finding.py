"""A schedule done again, with what is to be seen at each of its acts."""

from collections.abc import Sequence

from vdev.errors import UserError
from vdev.race.combination import Bound, Combination
from vdev.race.verdict import Act, Finding, Moment
from vdev.race.world import World

__all__ = ["replay"]


def replay(combination: Combination, bound: Bound, acts: Sequence[Act], *, broken: str | None = None) -> Finding:
    """Do these acts in a new world; `lost` is what they lose, `broken` the invariant that the caller looks for.

    Raises UserError, which names the first act that is not possible where it stands.
    """
    world = World(combination, bound)
    moments: list[Moment] = []
    for number, act in enumerate(acts, 1):
        if act not in (enabled := world.enabled()):
            possible = ", ".join(map(str, enabled)) or "nothing: the migration is over"
            raise UserError(f'act {number}, "{act}", is not possible there; possible is {possible}')
        world.do(act)
        moments.append(world.moment(act))
    return Finding(combination, bound, tuple(moments), world.lost, broken)
