"""From a construct declaration to a numpy dtype: the one file that knows both.

>>> from spec.split_ring import DESCRIPTOR
>>> dtype_of(DESCRIPTOR).itemsize
16
>>> dtype_of(DESCRIPTOR).names
('addr', 'len', 'flags', 'next')
"""

import struct
from collections.abc import Mapping
from functools import cache
from typing import Any

import construct
import numpy as np

__all__ = ["VariableSizedLayout", "dtype_of", "offset_of", "struct_of"]


class VariableSizedLayout(TypeError):
    """A declaration has no fixed size, or no numpy equivalent, so no live view of it can exist.

    Such a layout is parsed and built with construct only.
    """


@cache
def dtype_of(declaration: construct.Construct) -> np.dtype[Any]:
    """Return the packed numpy dtype that reads and writes the same bytes as `declaration`.

    Integers of 1, 2, 4 and 8 bytes of either byte order become numpy integers, `Bytes(n)` a void of n bytes,
    `Padding(n)` a gap, `Array(n, x)` a sub-array, a named `Struct` a structured dtype without alignment gaps.

    Raises VariableSizedLayout, naming the field, for anything whose size depends on the data.
    """
    return _dtype_of(declaration, declaration.name or type(declaration).__name__)


def offset_of(declaration: construct.Construct, field: str) -> int:
    """Return the offset of a struct's field, bytes. Raises KeyError if there is no such field.

    >>> from spec.split_ring import DESCRIPTOR
    >>> offset_of(DESCRIPTOR, "flags")
    12
    """
    fields: Mapping[str, tuple[Any, ...]] = dtype_of(declaration).fields or {}
    offset: int = fields[field][1]
    return offset


@cache
def struct_of(declaration: construct.Construct) -> struct.Struct:
    """Return the `struct.Struct` of the same bytes, one value per field: the quickest way to a single record.

    Raises VariableSizedLayout, naming the field, for anything but a struct of little-endian integers without gaps.

    >>> from spec.split_ring import DESCRIPTOR
    >>> struct_of(DESCRIPTOR).format
    '<QIHH'
    """
    dtype = dtype_of(declaration)
    codes = ""
    for name in dtype.names or ():
        field = dtype[name]
        code = _STRUCT_CODES.get(field.str.replace("|", "<"))
        if code is None:
            raise VariableSizedLayout(f"{declaration.name}.{name}: not a little-endian integer")
        codes += code
    packed = struct.Struct("<" + codes)
    if not codes or packed.size != dtype.itemsize:
        raise VariableSizedLayout(f"{declaration.name}: not a struct of integers without gaps")
    return packed


_STRUCT_CODES = {"<u1": "B", "<u2": "H", "<u4": "I", "<u8": "Q", "<i1": "b", "<i2": "h", "<i4": "i", "<i8": "q"}


def _dtype_of(declaration: construct.Construct, path: str) -> np.dtype[Any]:
    inner = declaration
    while isinstance(inner, construct.Renamed):
        inner = inner.subcon
    if isinstance(inner, construct.FormatField):
        return _integer_dtype(inner, path)
    if isinstance(inner, construct.Struct):
        return _struct_dtype(inner, path)
    if isinstance(inner, construct.Array):
        if callable(inner.count):
            raise VariableSizedLayout(f"{path}: the number of elements depends on the data; parse it with construct")
        return np.dtype((_dtype_of(inner.subcon, f"{path}[]"), (inner.count,)))
    if isinstance(inner, construct.Bytes):
        if callable(inner.length):
            raise VariableSizedLayout(f"{path}: the number of bytes depends on the data; parse it with construct")
        return np.dtype(f"V{inner.length}")
    if isinstance(inner, construct.Const):
        return _dtype_of(inner.subcon, path)
    raise VariableSizedLayout(f"{path}: {type(inner).__name__} has no fixed numpy layout; parse it with construct")


def _integer_dtype(field: construct.FormatField, path: str) -> np.dtype[Any]:
    order, code = field.fmtstr[0], field.fmtstr[1:]
    if code not in set("bBhHiIlLqQ") or order not in "<>":
        raise VariableSizedLayout(f"{path}: format {field.fmtstr!r} is not a fixed-endian integer")
    kind = "u" if code.isupper() else "i"
    return np.dtype(f"{order}{kind}{field.length}")


def _struct_dtype(struct: construct.Struct, path: str) -> np.dtype[Any]:
    names: list[str] = []
    formats: list[np.dtype[Any]] = []
    offsets: list[int] = []
    offset = 0
    for member in struct.subcons:
        if member.name is None:
            if not isinstance(member, construct.Padded):
                raise VariableSizedLayout(f"{path}: a member without a name, {type(member).__name__}, is not a gap")
            offset += member.sizeof()
            continue
        dtype = _dtype_of(member, f"{path}.{member.name}")
        names.append(member.name)
        formats.append(dtype)
        offsets.append(offset)
        offset += dtype.itemsize
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": offset})
