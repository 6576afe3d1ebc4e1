"""Configuration space through messages: which part of a layout the back end has."""

from collections.abc import Callable, Iterator
from typing import Any

import construct

from guest_agent.vhost_user.errors import BackEndRefused
from spec.layout import dtype_of
from spec.vhost_user import MAX_CONFIG_SIZE
from vdev.errors import DeviceViolation

__all__ = ["Configuration"]


class Configuration:
    """Remembers how much of each layout the back end has.

    A device may have less than the newest text gives its type, where its features do not need the rest. A back end
    says so by an answer without payload, so the largest part that ends with a field is looked for, once.
    """

    def __init__(self) -> None:
        self._sizes: dict[construct.Construct, int] = {}

    def read(self, layout: construct.Construct, ask: Callable[[int, int], bytes]) -> dict[str, int]:
        """Return all integer fields, 0 for those that the device does not have, as of one moment.

        `ask` returns `size` bytes from `offset` on and raises BackEndRefused where there are none. Raises
        DeviceViolation if not even the first field is there.
        """
        for size in self._candidates(layout):
            try:
                content = ask(0, size)
            except BackEndRefused:
                continue
            self._sizes[layout] = size
            names = dtype_of(layout).names or ()
            spans = _field_spans(layout)
            return {
                n: int.from_bytes(content[start:end], "little") for n, (start, end) in zip(names, spans, strict=True)
            }
        raise DeviceViolation("Device Configuration Space", f"the device has no {layout.name}")

    def size_of(self, layout: construct.Construct) -> int:
        """Return how many bytes of a layout that was read the device has."""
        return self._sizes[layout]

    def _candidates(self, layout: construct.Construct) -> Iterator[int]:
        if (known := self._sizes.get(layout)) is not None:
            yield known
            return
        ends = {min(dtype_of(layout).itemsize, MAX_CONFIG_SIZE), *(end for _, end in _field_spans(layout))}
        yield from sorted((end for end in ends if end <= MAX_CONFIG_SIZE), reverse=True)


def field_span(layout: construct.Construct, name: str) -> tuple[int, int]:
    """Return where a field begins and ends, bytes."""
    return dict(zip(dtype_of(layout).names or (), _field_spans(layout), strict=True))[name]


def _field_spans(layout: construct.Construct) -> list[tuple[int, int]]:
    dtype = dtype_of(layout)
    fields: Any = dtype.fields
    return [(fields[name][1], fields[name][1] + fields[name][0].itemsize) for name in dtype.names or ()]
