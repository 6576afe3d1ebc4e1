"""Copies of a whole machine: taken, put back, compared. Nothing here knows what the machine is.

The fields of all objects that can be reached are walked once. What they hold is then of three kinds: values that never
change (numbers, text, enums, tuples, frozen records, functions), containers, which are copied, and further objects.
Memory that is mapped (guest RAM, its page marks) is not copied whole, but by the spans that are named.

Copies share what is equal: a copy has, for each object, container and span, the very same part as the copy before it
where nothing changed. So a copy costs little memory, and putting one back touches only what differs.
"""

import mmap
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import is_dataclass
from enum import Enum
from hashlib import blake2b
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from construct import Construct

from vdev.events import Emitter

__all__ = ["MachineState", "State"]

State = tuple[Any, ...]
"""One copy. Only MachineState knows what is in it."""

_SCALARS = (int, float, str, bytes, type(None), Enum, np.generic, range)
_PLAIN = frozenset((int, bool, float, str, bytes, type(None), tuple))
_OPAQUE = (
    FunctionType,
    BuiltinFunctionType,
    ModuleType,
    type,
    memoryview,
    mmap.mmap,
    np.dtype,
    Construct,
    Emitter,
    BaseException,
)
_CONTAINERS = (dict, list, set, deque, bytearray)


def _is_mapped(array: np.ndarray[Any, Any]) -> bool:
    base: Any = array
    while isinstance(base, np.ndarray):
        if base.base is None:
            return False
        base = base.base
    return not isinstance(base, bytearray) and not (isinstance(base, memoryview) and isinstance(base.obj, bytearray))


def _is_record(value: object) -> bool:
    return is_dataclass(value) and bool(getattr(type(value), "__dataclass_params__").frozen)  # noqa: B009


class _Walk:
    """Every object and container below some roots, each once, in an order that only hangs on the fields."""

    def __init__(self, roots: Sequence[object], ignored: Sequence[object]) -> None:
        self.objects: list[Any] = []
        self.containers: list[Any] = []
        self.arrays: list[np.ndarray[Any, Any]] = []
        self._seen = {id(item): item for item in ignored}
        pending = deque(roots)
        while pending:
            pending.extend(self._visit(pending.popleft()))

    def _visit(self, value: Any) -> Iterator[Any]:
        if isinstance(value, MethodType):
            yield value.__self__
            return
        if isinstance(value, (*_SCALARS, *_OPAQUE)) or id(value) in self._seen:
            return
        if isinstance(value, (tuple, frozenset)):
            yield from value
            return
        self._seen[id(value)] = value
        if isinstance(value, np.ndarray):
            if value.size and not _is_mapped(value):
                self.arrays.append(value)
        elif isinstance(value, _CONTAINERS):
            self.containers.append(value)
            if isinstance(value, dict):
                yield from value.values()
            elif not isinstance(value, bytearray):
                yield from value
        elif _is_record(value):
            yield from (getattr(value, name) for name in type(value).__dataclass_fields__)
        elif hasattr(value, "__dict__"):
            # One without a field cannot change: it is copied for free.
            self.objects.append(value)
            yield from vars(value).values()
        else:
            raise TypeError(f"a machine's state cannot have a {type(value).__name__} in it: its fields are not known")


class MachineState:
    """The state of all that can be reached from `roots`, and of `spans`: live, writable bytes.

    `ignored` objects are neither copied nor walked through. Raises TypeError for an object whose fields cannot be seen.
    """

    def __init__(self, roots: Sequence[object], spans: Sequence[memoryview], ignored: Sequence[object] = ()) -> None:
        walk = _Walk(roots, ignored)
        self._fields = [vars(item) for item in walk.objects]
        self._containers = walk.containers
        self._arrays = walk.arrays
        self._static = {id(item) for item in (*walk.objects, *walk.containers, *walk.arrays, *ignored)}
        self._number = {id(item): number for number, item in enumerate((*walk.objects, *walk.containers))}
        self._spans = tuple(span.cast("B") for span in spans)
        self._kept: list[Any] = [*walk.objects, *walk.containers, *walk.arrays]
        self._now: State = (
            *(self._copy_fields(fields) for fields in self._fields),
            *map(self._copy_container, self._containers),
            *(array.tobytes() for array in self._arrays),
            *(span.tobytes() for span in self._spans),
        )
        self._live: list[Any] = [*self._fields, *self._containers]
        self._container_start = len(self._fields)
        self._array_start = len(self._fields) + len(self._containers)
        self._span_start = self._array_start + len(self._arrays)

    def capture(self) -> State:
        """Return a copy of the state as it is."""
        before = self._now
        now = list(before)
        index = 0
        for live in self._live:
            copy = before[index]
            try:
                if live == copy:
                    index += 1
                    continue
            except ValueError:
                pass  # numpy does not say whether arrays are equal as a whole: then they count as changed.
            if index >= self._container_start:
                now[index] = self._copy_container(live)
            elif copy.__class__ is dict or not _same(live, copy[0]):
                now[index] = self._copy_fields(live)
            index += 1
        for array in self._arrays:
            if (data := array.tobytes()) != before[index]:
                now[index] = data
            index += 1
        for span in self._spans:
            if (data := span.tobytes()) != before[index]:
                now[index] = data
            index += 1
        self._now = tuple(now)
        return self._now

    def put_back(self, state: State, *, captured: bool = False) -> None:
        """Be as when `state` was taken. `captured` says that nothing was done since the last copy was taken."""
        now = self._now if captured else self.capture()
        for index, (part, wanted) in enumerate(zip(now, state, strict=True)):
            if part is not wanted:
                self._restore(index, wanted)
        self._now = state

    def _restore(self, index: int, wanted: Any) -> None:
        if index < len(self._fields):
            fields = self._fields[index]
            if len(fields) != len(wanted):
                fields.clear()
            fields.update(wanted if wanted.__class__ is dict else wanted[0])
            if wanted.__class__ is not dict:
                for name in wanted[1]:
                    fields[name] = self._copy_value(fields[name])
        elif index < self._array_start:
            _fill(self._containers[index - len(self._fields)], wanted, self._copy_value)
        elif index < self._span_start:
            array = self._arrays[index - self._array_start]
            array[...] = np.frombuffer(wanted, array.dtype).reshape(array.shape)
        else:
            self._spans[index - self._span_start][:] = wanted

    # Copies of parts

    def _copy_fields(self, fields: dict[str, Any]) -> Any:
        """Return a dict; with the names of fields whose value is itself a container, where there are any."""
        copy = dict(fields)
        owned = tuple(name for name, value in fields.items() if self._must_copy(value))
        for name in owned:
            copy[name] = self._copy_value(copy[name])
        return (copy, owned) if owned else copy

    def _copy_container(self, container: Any) -> Any:
        if isinstance(container, dict):
            return {key: self._copy_value(value) for key, value in container.items()}
        if isinstance(container, (set, bytearray)):
            return container.copy()
        return type(container)(self._copy_value(value) for value in container)

    def _must_copy(self, value: Any) -> bool:
        if value.__class__ in _PLAIN or id(value) in self._static:
            return False
        return self._copy_value(value) is not value

    def _copy_value(self, value: Any) -> Any:
        """Return a value as it can be kept: a container that came later than the walk is copied too."""
        if isinstance(value, (*_SCALARS, *_OPAQUE, MethodType)) or id(value) in self._static:
            return value
        if isinstance(value, _CONTAINERS):
            return self._copy_container(value)
        if isinstance(value, (tuple, frozenset, np.ndarray)) or _is_record(value):
            return value  # Nobody changes these in place.
        raise TypeError(f"a {type(value).__name__} came into the machine's state after it was walked through")

    # A digest of everything

    def digest(self) -> bytes:
        """Return a digest of the whole state: slow, and equal only where every bit of it is."""
        digest = blake2b(digest_size=16)
        for part in self.capture():
            digest.update(self._encode(part).encode())
        return digest.digest()

    def _encode(self, value: Any) -> str:
        if id(value) in self._number:
            return f"#{self._number[id(value)]}"
        if isinstance(value, Enum):
            return f"{type(value).__name__}.{value.name}"
        if isinstance(value, np.ndarray):
            return f"{value.dtype}{value.tolist()}" if not _is_mapped(value) else "mapped"
        if isinstance(value, (set, frozenset)):
            return "{" + ",".join(sorted(map(self._encode, value))) + "}"
        if isinstance(value, dict):
            return "{" + ",".join(f"{key}:{self._encode(item)}" for key, item in value.items()) + "}"
        if isinstance(value, (tuple, list, deque)):
            return "(" + ",".join(map(self._encode, value)) + ")"
        if _is_record(value):
            return "<" + ",".join(self._encode(getattr(value, name)) for name in value.__dataclass_fields__) + ">"
        if isinstance(value, (MethodType, *_OPAQUE)):
            return str(type(value).__name__)
        return repr(value)


def _same(live: Any, copy: Any) -> bool:
    try:
        return bool(live == copy)
    except ValueError:
        return False


def _fill(container: Any, wanted: Any, copy: Callable[[Any], Any]) -> None:
    if isinstance(container, dict):
        container.clear()
        container.update((key, copy(value)) for key, value in wanted.items())
    elif isinstance(container, set):
        container.clear()
        container.update(wanted)
    elif isinstance(container, bytearray):
        container[:] = wanted
    else:
        container.clear()
        container.extend(map(copy, wanted))
