"""The device's free-page-hint state machine, as a table."""

from enum import Enum, IntEnum

from spec.balloon import CommandId

__all__ = ["HINT_TRANSITIONS", "HintInput", "HintState", "next_hint_state", "shown_command_id"]


class HintState(IntEnum):
    """What the device makes of pages in the free page queue. The values are those of a saved balloon."""

    STOP = 0
    """Hints are ignored; the driver holds what it hinted."""
    REQUESTED = 1
    """The driver was asked under a new id and has not yet echoed it; hints are ignored."""
    START = 2
    """The driver echoed the id: hints are applied."""
    DONE = 3
    """The device needs no hints any more; the driver may release what it held."""


class HintInput(Enum):
    """What moves the state machine: the host's three calls, and an id that the driver posted."""

    REQUEST = "request"
    STOP = "stop"
    DONE = "done"
    ID_ECHOED = "the id asked for"
    OTHER_ID = "any other id"


HINT_TRANSITIONS: dict[tuple[HintState, HintInput], HintState] = {
    (HintState.STOP, HintInput.REQUEST): HintState.REQUESTED,
    (HintState.REQUESTED, HintInput.REQUEST): HintState.REQUESTED,
    (HintState.START, HintInput.REQUEST): HintState.REQUESTED,
    (HintState.DONE, HintInput.REQUEST): HintState.REQUESTED,
    (HintState.REQUESTED, HintInput.STOP): HintState.STOP,
    (HintState.START, HintInput.STOP): HintState.STOP,
    (HintState.DONE, HintInput.STOP): HintState.STOP,
    (HintState.STOP, HintInput.DONE): HintState.DONE,
    (HintState.REQUESTED, HintInput.DONE): HintState.DONE,
    (HintState.START, HintInput.DONE): HintState.DONE,
    (HintState.REQUESTED, HintInput.ID_ECHOED): HintState.START,
    # The driver ends its own hints with STOP; any id does, also the same one over again.
    (HintState.START, HintInput.ID_ECHOED): HintState.STOP,
    (HintState.START, HintInput.OTHER_ID): HintState.STOP,
}
"""What is not here changes nothing: an old id after STOP restarts nothing, a second DONE tells the driver nothing."""


def next_hint_state(state: HintState, what: HintInput) -> HintState | None:
    """Return the state that `what` leads to, None where it changes nothing."""
    return HINT_TRANSITIONS.get((state, what))


def shown_command_id(state: HintState, command_id: int) -> int:
    """Return what free_page_hint_cmd_id reads as: the id only while it is asked for."""
    if state is HintState.REQUESTED:
        return command_id
    return int(CommandId.DONE if state is HintState.DONE else CommandId.STOP)
