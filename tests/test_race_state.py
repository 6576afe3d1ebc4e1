from collections import deque
from dataclasses import dataclass
from enum import Enum

import numpy as np
import pytest

from vdev.race.state import MachineState


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass(frozen=True)
class Record:
    number: int


class Part:
    def __init__(self):
        self.number = 0
        self.colour = Colour.RED
        self.names = ["a"]
        self.sets = {1: {2}}
        self.queue = deque([1])
        self.words = np.zeros(3, np.uint64)
        self.raw = bytearray(4)
        self.raw_view = np.frombuffer(self.raw, np.uint8)
        self.record = Record(1)
        self.later = None
        self.other = None


class Whole:
    def __init__(self):
        self.part = Part()
        self.part.other = self
        self.same_list = self.part.names
        self.call = self.part.names.append


def change(part):
    part.number += 1
    part.colour = Colour.BLUE
    part.names.append("b")
    part.sets[1].add(7)
    part.sets[3] = {4}
    part.queue.append(2)
    part.words[1] = 9
    part.raw[2] = 5
    part.record = Record(part.number)


def test_what_was_changed_is_as_before_after_it_was_put_back():
    whole = Whole()
    state = MachineState([whole], [])
    before, copy = state.digest(), state.capture()
    change(whole.part)
    assert state.digest() != before
    state.put_back(copy)
    assert state.digest() == before
    part = whole.part
    assert (part.number, part.colour, part.names, part.sets, list(part.queue)) == (0, Colour.RED, ["a"], {1: {2}}, [1])
    assert part.words.tolist() == [0, 0, 0]
    assert part.raw_view.tolist() == [0, 0, 0, 0]
    assert part.record == Record(1)


def test_containers_that_two_objects_share_stay_shared():
    whole = Whole()
    state = MachineState([whole], [])
    copy = state.capture()
    change(whole.part)
    state.put_back(copy)
    whole.part.names.append("c")
    assert whole.same_list == ["a", "c"]


def test_a_container_that_came_later_is_copied_and_not_kept():
    whole = Whole()
    state = MachineState([whole], [])
    whole.part.later = [[1], [2]]
    copy = state.capture()
    whole.part.later[0].append(3)
    state.put_back(copy)
    assert whole.part.later == [[1], [2]]
    whole.part.later[0].append(4)
    state.put_back(copy)
    assert whole.part.later == [[1], [2]]


def test_arrays_that_took_each_others_place_are_put_back():
    whole = Whole()
    state = MachineState([whole], [])
    whole.part.later = np.arange(3)
    first = state.capture()
    whole.part.later = np.arange(5)
    second = state.capture()
    state.put_back(first)
    assert whole.part.later.tolist() == [0, 1, 2]
    state.put_back(second)
    assert whole.part.later.tolist() == [0, 1, 2, 3, 4]


def test_an_object_that_came_later_is_refused_and_named():
    whole = Whole()
    state = MachineState([whole], [])
    whole.part.later = Part()
    with pytest.raises(TypeError, match="Part"):
        state.capture()


def test_an_object_whose_fields_cannot_be_seen_is_refused():
    whole = Whole()
    whole.part.later = iter([])
    with pytest.raises(TypeError, match="list_iterator"):
        MachineState([whole], [])


def test_spans_are_put_back_and_only_they():
    memory = bytearray(range(8))
    view = memoryview(memory)
    state = MachineState([], [view[2:4], view[6:8]])
    copy = state.capture()
    memory[:] = bytes(8)
    state.put_back(copy)
    assert bytes(memory) == bytes([0, 0, 2, 3, 0, 0, 6, 7])


def test_what_is_ignored_is_neither_copied_nor_walked_through():
    whole = Whole()
    whole.part.later = iter([])
    state = MachineState([whole], [], ignored=[whole.part])
    copy = state.capture()
    whole.part.number = 5
    state.put_back(copy)
    assert whole.part.number == 5


def test_copies_share_what_did_not_change():
    whole = Whole()
    state = MachineState([whole], [])
    first = state.capture()
    whole.part.words[0] = 1
    second = state.capture()
    assert sum(one is not other for one, other in zip(first, second, strict=True)) == 1
