"""A device's configuration space as vhost-user messages read and write it."""

from typing import Any

import numpy as np

from spec.vhost_user import CONFIG, CONFIG_FLAGS, MAX_CONFIG_SIZE, ConfigFlag
from vdev.device import Device
from vdev.errors import FrontEndViolation
from vdev.vhost_user.bring_up import BringUp
from vdev.vhost_user.framing import Message

__all__ = ["Configuration"]

_CLAUSE = "Virtio device config space"


class Configuration:
    """The configuration space of `device`, and whether the front end knows it as it is."""

    def __init__(self, device: Device, bring_up: BringUp) -> None:
        self._device = device
        self._bring_up = bring_up
        self._told_generation = device.config_generation

    @property
    def size(self) -> int:
        """Bytes."""
        return int(self._device.config.dtype.itemsize)

    @property
    def is_told(self) -> bool:
        """Whether the device has changed nothing since the front end last read, or was told of a change."""
        return self._told_generation == self._device.config_generation

    def note_told(self) -> None:
        """The front end knows of every change up to now."""
        self._told_generation = self._device.config_generation

    def get(self, payload: Any, _: Message) -> bytes:
        """GET_CONFIG; what is asked for behind the end reads as 0, for newer drivers know longer layouts."""
        self._check(payload)
        data = self._device.config.tobytes()[payload.offset : payload.offset + payload.size]
        self.note_told()
        answer: bytes = CONFIG.build(
            {
                "offset": payload.offset,
                "size": payload.size,
                "flags": payload.flags,
                "payload": data.ljust(payload.size, b"\0"),
            }
        )
        return answer

    def set(self, payload: Any, _: Message) -> None:
        """SET_CONFIG: the driver's fields, or all of them when the device is moved here.

        A front end sends all it has when the driver writes one field. Its old copy of the device's own fields is left
        aside; a message that is for nothing else is refused.
        """
        self._check(payload)
        if payload.flags == ConfigFlag.MIGRATION:
            raw = self._device.config.reshape(1).view(np.uint8)
            data = payload.payload[: self.size - payload.offset]
            raw[payload.offset : payload.offset + len(data)] = np.frombuffer(data, np.uint8)
            return
        changed = self._changed_fields(payload.offset, payload.payload)
        for field, data in changed.items():
            self._bring_up.write_field(field, data)
        writable = self._device.writable_fields()
        if self._device.running and changed and writable.isdisjoint(self._fields_in(payload.offset, payload.size)):
            raise FrontEndViolation(_CLAUSE, f"{', '.join(changed)} is not the driver's to write")

    def _check(self, payload: Any) -> None:
        if payload.flags not in CONFIG_FLAGS:
            raise FrontEndViolation(_CLAUSE, f"unknown flags {payload.flags:#x}")
        if payload.offset >= self.size or not 0 < payload.size <= MAX_CONFIG_SIZE - payload.offset:
            raise FrontEndViolation(
                _CLAUSE, f"{payload.size} bytes at {payload.offset:#x} of a space of {self.size} bytes"
            )

    def _fields_in(self, offset: int, size: int) -> dict[str, tuple[int, int]]:
        """Return (offset, size) of each field wholly inside."""
        fields = self._device.config.dtype.fields
        if fields is None:
            return {}
        places = {name: (int(where), int(kind.itemsize)) for name, (kind, where, *_) in fields.items()}
        return {
            name: (where, width)
            for name, (where, width) in places.items()
            if offset <= where and where + width <= offset + size
        }

    def _changed_fields(self, offset: int, data: bytes) -> dict[str, bytes]:
        now = self._device.config.tobytes()
        written = {
            name: data[where - offset : where - offset + width]
            for name, (where, width) in self._fields_in(offset, len(data)).items()
        }
        places = self._fields_in(offset, len(data))
        return {name: part for name, part in written.items() if part != now[places[name][0] : sum(places[name])]}
