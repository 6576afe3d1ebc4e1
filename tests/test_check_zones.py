"""A disk of zones that does what the text says is failed by no check, and none is passed over for want of one."""

import pytest
from check_mutants_block import ErasingDisk, ageing, disk
from zoned_disk import FIELDS, ZoneModel, ZoneType, zoned

from vdev.check.run import judge
from vdev.check.target_registers import RegistersTarget
from vdev.check.verdict import Verdict

ZONES = ("zones.*", "block-zoned.*")
PREFERRED = ZoneType.SEQUENTIAL_PREFERRED
DISKS = {
    "host-managed": (zoned(), ZONES),
    "host-aware": (zoned(model=ZoneModel.HOST_AWARE, sequential=PREFERRED), ()),
    "short appends": (zoned(zone_fields=FIELDS | {"max_append_sectors": 4}), ZONES),
    "no appends": (zoned(zone_fields=FIELDS | {"max_append_sectors": 0}), ZONES),
    "erasing": (disk(ErasingDisk), ()),
    "ageing": (disk(ageing(b"\x01\0\x0b\0\x01\0")), ()),
}


def cases_of(name):
    make, only = DISKS[name]
    return judge(RegistersTarget(make), "block", only=only).cases


@pytest.mark.parametrize("name", DISKS)
def test_a_right_disk_is_failed_by_no_check(name):
    others = [case for case in cases_of(name) if case.verdict not in (Verdict.PASS, Verdict.NOT_APPLICABLE)]
    assert not others


def test_some_disk_here_passes_each_check_of_zones_erases_and_lifetimes():
    cases = [case for name in DISKS for case in cases_of(name)]
    passed = {case.check for case in cases if case.verdict is Verdict.PASS}
    special = {case.check for case in cases if case.check.startswith(("zones.", "block-zoned."))}
    special |= {"block-ranges.erase-keeps-to-its-range", "block-types.lifetime-has-no-reserved-value"}
    assert special - passed == set()
