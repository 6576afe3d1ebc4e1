"""Checks of configuration space, whatever its device type and its carrier."""

import itertools
from typing import Any

import numpy as np

import spec.balloon
import spec.block
from spec.device import DeviceId
from spec.layout import dtype_of
from spec.vhost_user import ProtocolFeature
from vdev.check.bench.bench import Bench
from vdev.check.evidence import Shown
from vdev.check.registry import check
from vdev.check.verdict import NotApplicable
from vdev.devices.kind import Carrier

_LAYOUTS = {DeviceId.BLOCK: spec.block.CONFIG, DeviceId.BALLOON: spec.balloon.CONFIG}
READ_ONLY = {DeviceId.BLOCK: ("capacity",), DeviceId.BALLOON: ("num_pages",)}
"""Fields of which every driver knows that they are the device's."""
_SIZES = (256, 128, 96, 64, 60, 56, 48, 40, 36, 32, 24, 20, 16, 12, 8, 4, 2, 1)
"""What a device of an unknown type is asked for, until it has that much."""


def layout(bench: Bench) -> "np.dtype[Any] | None":
    """Return the layout of the configuration space, None for a type whose layout is not known here."""
    device_id = bench.traffic.device_id
    return dtype_of(_LAYOUTS[DeviceId(device_id)]) if device_id in _LAYOUTS else None


def size(bench: Bench) -> int:
    """Return how many bytes configuration space has; ends the check for a device that has none."""
    known = layout(bench)
    if bench.carrier is Carrier.MMIO:
        if known is None:
            raise NotApplicable("a device of this type has no configuration space that is known here")
        return known.itemsize
    front_end = bench.front_end
    if not front_end.has(ProtocolFeature.CONFIG):
        bench.control.begin()
        front_end.need(ProtocolFeature.CONFIG)
    most = max(_SIZES) if known is None else known.itemsize
    for count in (most, *_SIZES):
        if count <= most and front_end.get_config(0, count):
            return count
    raise NotApplicable("the device has no configuration space")


def read(bench: Bench) -> bytes:
    """Return all of configuration space, each field with accesses of its own width."""
    known = layout(bench)
    if known is None or bench.carrier is Carrier.VHOST_USER:
        return bench.control.read_config(0, size(bench))
    parts = [bench.control.read_config(offset, width) for offset, width in _accesses(known)]
    return b"".join(parts)


def _accesses(dtype: "np.dtype[Any]", base: int = 0) -> list[tuple[int, int]]:
    """Return offset and size of each access, in order: as wide as the field, a 64-bit one in two."""
    if dtype.fields is not None:
        places = sorted((offset, inner) for inner, offset, *_ in dtype.fields.values())
        return list(itertools.chain.from_iterable(_accesses(inner, base + offset) for offset, inner in places))
    if dtype.subdtype is not None:
        item, shape = dtype.subdtype
        count = int(np.prod(shape))
        return list(itertools.chain.from_iterable(_accesses(item, base + i * item.itemsize) for i in range(count)))
    width = 1 if dtype.kind == "V" else min(dtype.itemsize, 4)
    return [(base + offset, width) for offset in range(0, dtype.itemsize, width)]


@check("config.readable-before-features-ok", covers=["config.device.1"])
def readable_before_features_ok(bench: Bench) -> None:
    """Configuration space can be read before features are agreed, and is what it is afterwards."""
    generation = bench.control.config_generation()
    early = read(bench)
    bench.start(drive=False)
    late = read(bench)
    if generation != bench.control.config_generation():
        bench.inconclusive("the device changed its configuration space meanwhile")
    bench.expect(
        early == late,
        "config.device.1",
        expected="before FEATURES_OK the same fields as after it",
        observed="other bytes",
        shown=[Shown("configuration space before", early), Shown("configuration space after", late)],
    )


@check("config.reads-the-same-twice", covers=["config.device.described.same"])
def reads_the_same_twice(bench: Bench) -> None:
    """Two reads give the same bytes, in one piece or field by field."""
    bench.start()
    before = bench.control.config_generation()
    whole = read(bench)
    again = b"".join(bench.control.read_config(offset, 1) for offset in range(len(whole))) if _in_bytes(bench) else None
    second = read(bench)
    if before != bench.control.config_generation():
        bench.inconclusive("the device changed its configuration space meanwhile")
    for other in (second, again):
        bench.expect(
            other in (None, whole),
            "config.device.described.same",
            expected="the same bytes",
            observed="other bytes",
            shown=[Shown("first read", whole), Shown("later read", other or b"")],
        )


def _in_bytes(bench: Bench) -> bool:
    return bench.carrier is Carrier.VHOST_USER


@check(
    "config.read-only-fields-stay",
    covers=["config.device.described.read-only"],
    carriers=[Carrier.MMIO],
    types=["block", "balloon"],
)
def read_only_fields_stay(bench: Bench) -> None:
    """A driver that writes to a field that is not its own changes nothing."""
    known = layout(bench)
    assert known is not None
    assert known.fields is not None
    bench.start()
    before = read(bench)
    for name in READ_ONLY[DeviceId(bench.traffic.device_id)]:
        inner, offset = known.fields[name][:2]
        width = min(inner.itemsize, 4)
        bench.control.write_config(offset, bytes(byte ^ 0xFF for byte in before[offset : offset + width]))
    after = read(bench)
    bench.expect(
        before == after,
        "config.device.described.read-only",
        expected="the fields as they were",
        observed="other values",
        shown=[Shown("before", before), Shown("after", after)],
    )


@check(
    "config.odd-accesses-are-survived",
    covers=["hostile.device.alive"],
    carriers=[Carrier.MMIO],
    hostile=True,
)
def odd_accesses_are_survived(bench: Bench) -> None:
    """Accesses of no field, behind the end, or of no sensible width do the device no harm."""
    bench.start()
    for offset in (0, 1, 3, 7, 0x40, 0xFD, 0xFFC):
        for width in (1, 2, 4, 8):
            bench.registers.read(0x100 + offset, width)
            bench.registers.write(0x100 + offset, (1 << 8 * width) - 1, width)
    bench.exchange(bench.ring())


@check(
    "config.generation-moves-with-a-change",
    covers=["mmio.device.registers.6"],
    carriers=[Carrier.MMIO],
    types=["balloon"],
)
def generation_moves_with_a_change(bench: Bench) -> None:
    """ConfigGeneration has another value once configuration space has changed."""
    bench.start()
    before, fields = bench.control.config_generation(), read(bench)
    bench.host("inflate", pages=3)
    after, changed = bench.control.config_generation(), read(bench)
    if fields == changed:
        bench.inconclusive("the device's configuration space did not change when its host wanted pages")
    bench.expect(
        before != after,
        "mmio.device.registers.6",
        expected=f"another generation than {before}",
        observed=f"{after}, and other bytes",
        shown=[Shown("before", fields), Shown("after", changed)],
    )


@check("config.generation-stays-without-a-change", covers=["mmio.device.described.generation"], carriers=[Carrier.MMIO])
def generation_stays_without_a_change(bench: Bench) -> None:
    """ConfigGeneration is the same before and after a read in which nothing changed."""
    bench.start()
    before = bench.control.config_generation()
    bench.control.read_config(0, 4)
    after = bench.control.config_generation()
    bench.expect(
        before == after,
        "mmio.device.described.generation",
        expected=f"generation {before}, as nothing changed",
        observed=f"generation {after}",
    )
