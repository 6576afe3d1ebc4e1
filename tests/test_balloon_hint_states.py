"""The hint state machine, transition by transition."""

from itertools import product

import pytest

from spec.balloon import CommandId
from vdev.devices.balloon import HINT_TRANSITIONS, HintInput, HintState
from vdev.devices.balloon.hint_states import next_hint_state, shown_command_id


def test_only_the_echo_of_the_id_that_is_asked_for_starts_hinting():
    starting = [pair for pair, after in HINT_TRANSITIONS.items() if after is HintState.START]
    assert starting == [(HintState.REQUESTED, HintInput.ID_ECHOED)]


@pytest.mark.parametrize("what", [HintInput.ID_ECHOED, HintInput.OTHER_ID])
@pytest.mark.parametrize("state", [HintState.STOP, HintState.DONE])
def test_no_id_moves_a_device_that_asked_for_nothing(state, what):
    assert next_hint_state(state, what) is None


def test_the_driver_can_only_start_and_stop_never_say_done():
    by_driver = {HINT_TRANSITIONS.get(pair) for pair in product(HintState, (HintInput.ID_ECHOED, HintInput.OTHER_ID))}
    assert by_driver == {None, HintState.START, HintState.STOP}


@pytest.mark.parametrize("state", list(HintState))
def test_the_host_can_ask_in_every_state(state):
    assert next_hint_state(state, HintInput.REQUEST) is HintState.REQUESTED


def test_stop_and_done_change_nothing_the_second_time():
    assert next_hint_state(HintState.STOP, HintInput.STOP) is None
    assert next_hint_state(HintState.DONE, HintInput.DONE) is None


def test_the_id_shows_only_while_it_is_asked_for():
    shown = {state: shown_command_id(state, 0x8000_0007) for state in HintState}
    assert shown == {
        HintState.STOP: CommandId.STOP,
        HintState.REQUESTED: 0x8000_0007,
        HintState.START: CommandId.STOP,
        HintState.DONE: CommandId.DONE,
    }
