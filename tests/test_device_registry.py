"""The registry knows every device type; a device is made from it with options as a command line gives them."""

import subprocess
import sys
from pathlib import Path

import pytest
from block_setup import SECTOR

from guest_agent.drivers.registry import DRIVERS
from spec.balloon import QueueNumbering
from vdev.devices.kind import Carrier, OptionType
from vdev.devices.registry import DEVICES, device_kind
from vdev.errors import UserError
from vdev.memory import GuestMemory


def memory():
    return GuestMemory.private(1 << 20)


def test_every_device_has_a_driver_and_every_driver_a_device():
    assert {kind.device_id for kind in DEVICES.values()} == set(DRIVERS)
    assert {kind.name for kind in DEVICES.values()} == set(DEVICES) == {"balloon", "block", "entropy"}


def test_every_option_says_what_it_is_in_one_line():
    for kind in DEVICES.values():
        assert kind.summary
        assert "\n" not in kind.summary
        for option in kind.options:
            assert option.help.endswith(".")
            assert "\n" not in option.help
            assert option.required or option.default is not None
            assert (option.type is OptionType.CHOICE) == bool(option.choices)
            for carrier in Carrier:
                if not option.required:
                    option.check(option.default_for(carrier))


@pytest.mark.parametrize(
    ("carrier", "numbering"),
    [(Carrier.MMIO, QueueNumbering.FIXED), (Carrier.VHOST_USER, QueueNumbering.COMPACT)],
)
def test_the_balloons_numbering_has_the_default_of_its_carrier(carrier, numbering):
    assert device_kind("balloon").make(memory(), carrier=carrier).numbering is numbering
    other = device_kind("balloon").make(memory(), {"numbering": "fixed"}, carrier=carrier)
    assert other.numbering is QueueNumbering.FIXED


def test_a_disk_is_made_of_its_options(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(bytes(8 * SECTOR))
    options = {"file": str(path), "read-only": True, "queues": 3, "serial": None}
    disk = device_kind("block").make(memory(), options)
    assert disk.capacity == 8
    assert len(disk.queue_sizes) == 3
    disk.close()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("floppy", {}, "there is no device 'floppy'; choose one of balloon, block, entropy"),
        ("entropy", {"file": "x"}, "entropy: there is no option file"),
        ("block", {}, "block: the option file is needed"),
        ("block", {"file": "/nowhere/at/all"}, "No such file"),
        ("block", {"file": 3}, "file is a path, not 3"),
        ("block", {"file": "x", "queues": True}, "queues is a count, not True"),
        ("balloon", {"numbering": "odd"}, "numbering is one of fixed, compact"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(name, options, message):
    with pytest.raises(UserError, match=message):
        device_kind(name).make(memory(), options)


def test_a_refused_disk_leaves_no_file_open(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(bytes(8 * SECTOR))
    with pytest.raises(UserError, match="longer than 20 bytes"):
        device_kind("block").make(memory(), {"file": str(path), "serial": "x" * 21})
    assert not any(descriptor.resolve() == path for descriptor in Path("/proc/self/fd").iterdir())


def test_the_names_and_options_cost_no_import_of_numpy():
    code = "import sys, vdev.devices.registry; print('numpy' in sys.modules, 'construct' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.split() == ["False", "False"]
