"""What a command line and a machine must know of a device type before they make one: no device is imported for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

from spec.device import DeviceId
from vdev.errors import UserError
from vdev.events import SILENT, Emitter

if TYPE_CHECKING:
    from vdev.device import Device
    from vdev.memory import GuestMemory

__all__ = ["Carrier", "DeviceKind", "DeviceOption", "OptionType"]


class Carrier(Enum):
    """What carries a device to its driver. Some defaults hang on it: real peers differ."""

    MMIO = "mmio"
    VHOST_USER = "vhost-user"


class OptionType(Enum):
    """What an option's value is: a bool, an int, a str, a str that names a file, or one of `choices`."""

    FLAG = "flag"
    COUNT = "count"
    TEXT = "text"
    PATH = "path"
    CHOICE = "choice"


@dataclass(frozen=True)
class DeviceOption:
    """One option of a device type: `--name` on a command line.

    `defaults` are by carrier where they differ from `default`. A `required` option has none. `help` is one line.
    """

    name: str
    type: OptionType
    help: str
    default: Any = None
    defaults: Mapping[Carrier, Any] = field(default_factory=dict)
    choices: tuple[str, ...] = ()
    required: bool = False

    def default_for(self, carrier: Carrier) -> Any:
        """Return the value that is taken when nobody gives one."""
        return self.defaults.get(carrier, self.default)

    def check(self, value: Any) -> None:
        """Raise UserError for a value that this option cannot have."""
        allowed = _PYTHON_TYPES[self.type]
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            raise UserError(f"{self.name} is a {self.type.value}, not {value!r}")
        if self.type is OptionType.CHOICE and value not in self.choices:
            raise UserError(f"{self.name} is one of {', '.join(self.choices)}, not {value!r}")


_PYTHON_TYPES: dict[OptionType, tuple[type, ...]] = {
    OptionType.FLAG: (bool,),
    OptionType.COUNT: (int,),
    OptionType.TEXT: (str,),
    OptionType.PATH: (str,),
    OptionType.CHOICE: (str,),
}

DeviceFactory = Callable[["GuestMemory", Mapping[str, Any], Emitter], "Device"]
"""(memory, every option by name, events) -> the device. It imports what it makes."""


@dataclass(frozen=True)
class DeviceKind:
    """One device type: the `name` that a person types, its virtio id, one line about it, and its options."""

    name: str
    device_id: DeviceId
    summary: str
    options: tuple[DeviceOption, ...]
    factory: DeviceFactory

    def default(self, name: str, carrier: Carrier) -> Any:
        """Return the value that option `name` has when nobody gives one. Raises KeyError if there is no such option."""
        return {option.name: option for option in self.options}[name].default_for(carrier)

    def make(
        self,
        memory: "GuestMemory",
        options: Mapping[str, Any] | None = None,
        *,
        carrier: Carrier = Carrier.MMIO,
        events: Emitter = SILENT,
    ) -> "Device":
        """Return a device over `memory` with `options` by name; those not named, or None, have their default.

        Close it when it is used no more. Raises UserError, one line, for options that cannot be.
        """
        given = {name: value for name, value in (options or {}).items() if value is not None}
        if unknown := set(given) - {option.name for option in self.options}:
            raise UserError(f"{self.name}: there is no option {', '.join(sorted(unknown))}")
        values: dict[str, Any] = {}
        for option in self.options:
            if option.required and option.name not in given:
                raise UserError(f"{self.name}: the option {option.name} is needed: {option.help}")
            values[option.name] = given.get(option.name, option.default_for(carrier))
            if values[option.name] is not None:
                option.check(values[option.name])
        return self.factory(memory, values, events)
