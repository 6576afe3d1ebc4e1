"""The fields of configuration spaces, as a driver may access them: by their own width, one of 64 bits in halves."""

from enum import IntEnum
from functools import cache

import construct
import numpy as np

from spec.balloon import CONFIG as BALLOON_CONFIG
from spec.balloon import BalloonFeature
from spec.block import CONFIG as BLOCK_CONFIG
from spec.block import BlockFeature
from spec.layout import dtype_of

__all__ = ["access_sizes", "field_feature", "wide_fields"]

_OPTIONAL: dict[str, dict[str, IntEnum]] = {
    "balloon": {
        "free_page_hint_cmd_id": BalloonFeature.FREE_PAGE_HINT,
        "poison_val": BalloonFeature.PAGE_POISON,
    },
    "block": {
        "size_max": BlockFeature.SIZE_MAX,
        "seg_max": BlockFeature.SEG_MAX,
        "cylinders": BlockFeature.GEOMETRY,
        "heads": BlockFeature.GEOMETRY,
        "sectors": BlockFeature.GEOMETRY,
        "blk_size": BlockFeature.BLK_SIZE,
        "physical_block_exp": BlockFeature.TOPOLOGY,
        "alignment_offset": BlockFeature.TOPOLOGY,
        "min_io_size": BlockFeature.TOPOLOGY,
        "opt_io_size": BlockFeature.TOPOLOGY,
        "writeback": BlockFeature.CONFIG_WCE,
        "num_queues": BlockFeature.MQ,
        "max_discard_sectors": BlockFeature.DISCARD,
        "max_discard_seg": BlockFeature.DISCARD,
        "discard_sector_alignment": BlockFeature.DISCARD,
        "max_write_zeroes_sectors": BlockFeature.WRITE_ZEROES,
        "max_write_zeroes_seg": BlockFeature.WRITE_ZEROES,
        "write_zeroes_may_unmap": BlockFeature.WRITE_ZEROES,
    },
}
"""Device type -> field -> the feature with which it is there."""

_LAYOUTS: dict[str, construct.Construct] = {"balloon": BALLOON_CONFIG, "block": BLOCK_CONFIG}


@cache
def _accesses(device_type: str) -> dict[tuple[int, int], str]:
    """Return (offset, bytes) -> name of the field, for each access that the text allows."""
    layout = _LAYOUTS.get(device_type)
    return _of("", dtype_of(layout), 0) if layout is not None else {}


def _of(name: str, dtype: "np.dtype[np.void]", base: int) -> dict[tuple[int, int], str]:
    found: dict[tuple[int, int], str] = {}
    if dtype.fields is not None:
        for field, (inner, offset, *_) in dtype.fields.items():
            found |= _of(name or field, inner, base + offset)
        return found
    if dtype.subdtype is not None:
        item, shape = dtype.subdtype
        for place in range(int(np.prod(shape))):
            found |= _of(name, item, base + place * item.itemsize)
        return found
    width = 1 if dtype.kind == "V" else min(dtype.itemsize, 4)
    return {(base + at, width): name for at in range(0, dtype.itemsize, width)}


def access_sizes(device_type: str, offset: int, size: int) -> set[int]:
    """Return with how many bytes a field may be accessed that begins somewhere in these `size` bytes; none: no field.

    A field that begins before `offset` and holds it counts, too.
    """
    return {width for (at, width) in _accesses(device_type) if at < offset + size and offset < at + width}


def field_feature(device_type: str, offset: int) -> tuple[str, IntEnum | None]:
    """Return the name of the field that holds a byte, and the feature with which it is there; None where it always is.

    The name is empty where no field is.
    """
    for (at, width), name in _accesses(device_type).items():
        if at <= offset < at + width:
            return name, _OPTIONAL.get(device_type, {}).get(name)
    return "", None


@cache
def wide_fields(device_type: str) -> frozenset[int]:
    """Return the offsets of fields of 64 bits."""
    layout = _LAYOUTS.get(device_type)
    fields = dtype_of(layout).fields if layout is not None else None
    return frozenset(
        int(offset) for dtype, offset, *_ in (fields or {}).values() if dtype.kind == "u" and dtype.itemsize == 8
    )
