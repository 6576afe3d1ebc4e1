"""What may follow what in a stream, as tables: state -> record -> next state."""

from collections.abc import Mapping
from enum import StrEnum

from spec.stream import RecordType

__all__ = ["BACKWARD", "FORWARD", "Order", "State"]


class State(StrEnum):
    """How far a stream has come."""

    START = "start"
    MEMORY = "memory"
    DEVICES = "devices"
    VCPU = "vcpu"
    COMPLETE = "complete"
    READY = "ready"
    RESUMED = "resumed"
    ENDED = "ended"


Order = Mapping[State, Mapping[RecordType, State]]

FORWARD: Order = {
    State.START: {RecordType.SET_UP: State.MEMORY, RecordType.QUERY: State.ENDED},
    State.MEMORY: {
        RecordType.RAM_DATA: State.MEMORY,
        RecordType.ZERO_PAGES: State.MEMORY,
        RecordType.ROUND_END: State.MEMORY,
        RecordType.DEVICE: State.DEVICES,
        RecordType.VCPU: State.VCPU,
    },
    State.DEVICES: {RecordType.DEVICE: State.DEVICES, RecordType.VCPU: State.VCPU},
    State.VCPU: {RecordType.COMPLETE: State.COMPLETE},
    State.COMPLETE: {RecordType.COMMIT: State.ENDED},
    State.ENDED: {},
}
"""From the source to the destination."""

BACKWARD: Order = {
    State.START: {
        RecordType.READY: State.READY,
        RecordType.FAILED: State.ENDED,
        RecordType.ANSWER: State.ENDED,
    },
    State.READY: {RecordType.RESUMED: State.RESUMED, RecordType.FAILED: State.ENDED},
    State.RESUMED: {RecordType.VERDICT: State.ENDED, RecordType.FAILED: State.ENDED},
    State.ENDED: {},
}
"""From the destination to the source."""
