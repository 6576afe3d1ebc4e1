"""Every device type that this project has, by name. A new one is entered here, and nowhere else.

Importing this is quick: a device's module, and numpy with it, is imported when a device is made.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from spec.device import DeviceId
from vdev.devices.kind import Carrier, DeviceKind, DeviceOption, OptionType
from vdev.errors import UserError
from vdev.events import Emitter

if TYPE_CHECKING:
    from vdev.device import Device
    from vdev.memory import GuestMemory

__all__ = ["DEVICES", "device_kind"]


def _make_balloon(memory: "GuestMemory", options: Mapping[str, Any], events: Emitter) -> "Device":
    from spec.balloon import QueueNumbering
    from vdev.devices.balloon import BalloonDevice

    return BalloonDevice(memory, numbering=QueueNumbering(options["numbering"]), events=events)


def _make_block(memory: "GuestMemory", options: Mapping[str, Any], events: Emitter) -> "Device":
    from vdev.devices.block import BlockDevice, BlockFile

    file = BlockFile.open(options["file"], read_only=options["read-only"])
    try:
        return BlockDevice(memory, file, serial=options["serial"], queue_count=options["queues"], events=events)
    except UserError:
        file.close()
        raise


def _make_entropy(memory: "GuestMemory", options: Mapping[str, Any], events: Emitter) -> "Device":
    from vdev.devices.entropy import EntropyDevice

    return EntropyDevice(memory, events=events)


_KINDS = (
    DeviceKind(
        "balloon",
        DeviceId.BALLOON,
        "a memory balloon: takes pages from the guest, gives them back, and hears which are free",
        (
            DeviceOption(
                "numbering",
                OptionType.CHOICE,
                "How queues get their numbers: as the text has it, or without gaps as Linux and QEMU count.",
                default="fixed",
                defaults={Carrier.VHOST_USER: "compact"},
                choices=("fixed", "compact"),
            ),
        ),
        _make_balloon,
    ),
    DeviceKind(
        "block",
        DeviceId.BLOCK,
        "a disk whose sectors are a file or a block device of this machine",
        (
            DeviceOption("file", OptionType.PATH, "The file or block device that holds the sectors.", required=True),
            DeviceOption("read-only", OptionType.FLAG, "Refuse every write.", default=False),
            DeviceOption("queues", OptionType.COUNT, "Request queues.", default=1),
            DeviceOption("serial", OptionType.TEXT, "What the disk calls itself, at most 20 bytes.", default="vdev"),
        ),
        _make_block,
    ),
    DeviceKind("entropy", DeviceId.ENTROPY, "a source of random bytes", (), _make_entropy),
)

DEVICES: dict[str, DeviceKind] = {kind.name: kind for kind in _KINDS}
"""Name -> device type."""


def device_kind(name: str) -> DeviceKind:
    """Return the device type of that name. Raises UserError that lists the names there are."""
    kind = DEVICES.get(name)
    if kind is None:
        raise UserError(f"there is no device {name!r}; choose one of {', '.join(DEVICES)}")
    return kind
