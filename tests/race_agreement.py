"""A combination put to the lab and to the naive model of its protocol, for both to judge."""

from race_model import lost, search, successors
from race_model_state import Case, first

from vdev.race.acts import parse_act
from vdev.race.combination import Bound, Combination
from vdev.race.explore import explore
from vdev.race.finding import replay


def case_of(combination: Combination, bound: Bound) -> Case:
    """Return the model's words for a combination."""
    return Case(
        combination.strategy,
        answer=combination.answer,
        holds=combination.holds,
        log=combination.dirty_log,
        collects=combination.collects,
        start_buffer=combination.start_buffer,
        vcpus=int(combination.vcpus),
        effect=combination.effect,
        advance=combination.advance,
        pages=bound.pages,
        writes=bound.writes,
        hints=bound.hints,
        syncs=bound.syncs,
    )


def agree(combination: Combination, bound: Bound) -> None:
    """Both must find a loss of the same length, which is one for the other, too; or neither finds any."""
    case = case_of(combination, bound)
    verdict, expected = explore(combination, bound), search(case)
    assert verdict.complete
    if expected.loss is None:
        assert verdict.loss is None, [str(act) for act in verdict.loss.acts]
        return
    assert verdict.loss is not None, expected.loss
    assert len(verdict.loss.acts) == len(expected.loss)
    assert replay(combination, bound, [parse_act(act) for act in expected.loss]).lost
    state = first(case)
    for act in verdict.loss.acts:
        state = dict(successors(case, state))[str(act)]
    assert lost(state)
