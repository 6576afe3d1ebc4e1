"""Every layout in spec/ means the same bytes to construct and to numpy, and one that cannot says which field is why."""

import importlib
import pkgutil

import construct
import numpy as np
import pytest
from construct import (
    Array,
    Bytes,
    Const,
    GreedyBytes,
    Int8ub,
    Int16ub,
    Int16ul,
    Int32sl,
    Int32ul,
    Int64ul,
    Padding,
    Struct,
)
from hypothesis import given
from hypothesis import strategies as st

import spec
from spec import packed_ring
from spec.layout import VariableSizedLayout, dtype_of, struct_of
from spec.packed_area import buffer_notes
from spec.split_area import chain_notes
from spec.split_ring import (
    DESCRIPTOR,
    MAX_QUEUE_SIZE,
    USED_ELEMENT,
    available_ring,
    available_ring_size,
    descriptor_table_size,
    event_reached,
    used_ring,
    used_ring_size,
)


def declarations():
    """Every module-level construct declaration of spec/, by name."""
    found = {}
    for module_info in pkgutil.iter_modules(spec.__path__, "spec."):
        module = importlib.import_module(module_info.name)
        for name, value in vars(module).items():
            if name.isupper() and isinstance(value, construct.Construct):
                found[f"{module_info.name}.{name}"] = value
    return found


def has_fixed_size(declaration):
    try:
        declaration.sizeof()
    except construct.SizeofError:
        return False
    return True


ALL = declarations() | {
    f"{layout.__name__}({size})": layout(size)
    for layout in (available_ring, used_ring, chain_notes, buffer_notes)
    for size in (1, 2, 16, 256)
}
EXTRA = {
    "big-endian and signed": Struct("a" / Int16ub, "b" / Int32sl, "c" / Int8ub),
    "gaps and arrays": Struct(
        "a" / Int8ub, Padding(3), "b" / Array(3, Struct("x" / Int16ul, Padding(1))), "c" / Bytes(5)
    ),
    "a constant": Struct("magic" / Const(b"virt"), "version" / Int32ul),
}
FIXED = {name: layout for name, layout in (ALL | EXTRA).items() if has_fixed_size(layout)}
VARIABLE = {name: layout for name, layout in ALL.items() if not has_fixed_size(layout)}


def unwrap(declaration):
    while isinstance(declaration, construct.Renamed):
        declaration = declaration.subcon
    return declaration


def values_of(declaration):
    """A strategy for what construct builds from this declaration."""
    inner = unwrap(declaration)
    if isinstance(inner, construct.FormatField):
        bits = 8 * inner.length
        signed = inner.fmtstr[1].islower()
        return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1) if signed else st.integers(0, (1 << bits) - 1)
    if isinstance(inner, construct.Bytes):
        return st.binary(min_size=inner.length, max_size=inner.length)
    if isinstance(inner, construct.Const):
        return st.just(inner.value)
    if isinstance(inner, construct.Array):
        element = values_of(inner.subcon)
        return st.lists(element, min_size=1, max_size=4).map(lambda some: (some * inner.count)[: inner.count])
    assert isinstance(inner, construct.Struct), type(inner)
    return st.fixed_dictionaries({member.name: values_of(member) for member in inner.subcons if member.name})


def store(view, value):
    """Store what construct would build, through numpy."""
    if isinstance(value, dict):
        for name, part in value.items():
            target = view[name]
            if isinstance(part, bytes):
                view[name] = np.frombuffer(part, view.dtype[name])[0]
            elif isinstance(part, (dict, list)):
                store(target, part)
            else:
                view[name] = part
        return
    for index, part in enumerate(value):
        if isinstance(part, dict):
            store(view[index], part)
        else:
            view[index] = part


def plain(value):
    """What construct parsed, as dicts, lists, ints and bytes."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items() if not name.startswith("_")}
    return [plain(part) for part in value] if isinstance(value, list) else value


def plain_numpy(value):
    """What numpy shows, in the same shapes."""
    if isinstance(value, (np.void, np.ndarray)) and value.dtype.names:
        if value.shape:
            return [plain_numpy(part) for part in value]
        return {name: plain_numpy(value[name]) for name in value.dtype.names}
    if isinstance(value, np.void):
        return value.tobytes()
    return value.tolist()


@pytest.mark.parametrize("name", FIXED)
def test_construct_and_numpy_have_the_same_size(name):
    assert dtype_of(FIXED[name]).itemsize == FIXED[name].sizeof()


@pytest.mark.parametrize("name", FIXED)
@given(data=st.data())
def test_construct_and_numpy_read_and_write_the_same_bytes(name, data):
    declaration = FIXED[name]
    value = data.draw(values_of(declaration))
    built = declaration.build(value)
    dtype = dtype_of(declaration)

    read = np.frombuffer(built, dtype)[0]
    assert plain_numpy(read) == plain(declaration.parse(built))

    written = np.zeros((), dtype)
    store(written, value)
    assert written.tobytes() == built


def test_there_are_layouts_to_look_at():
    assert {"spec.split_ring.DESCRIPTOR", "spec.balloon.CONFIG", "spec.mmio.REGISTERS"} <= set(FIXED)


@pytest.mark.parametrize("name", VARIABLE)
def test_a_layout_whose_size_depends_on_the_data_is_refused_by_name(name):
    with pytest.raises(VariableSizedLayout, match=VARIABLE[name].name or "Struct"):
        dtype_of(VARIABLE[name])


@pytest.mark.parametrize(
    ("declaration", "field"),
    [
        ("frame" / Struct("size" / Int32ul, "data" / Bytes(construct.this.size)), "frame.data"),
        ("list" / Struct("count" / Int32ul, "items" / Array(construct.this.count, Int32ul)), "list.items"),
        ("tail" / Struct("inner" / Struct("rest" / GreedyBytes)), "tail.inner.rest"),
        ("nameless" / Struct(Int32ul), "nameless"),
        ("real" / Struct("value" / construct.Float32l), "real.value"),
    ],
)
def test_the_field_that_has_no_fixed_place_is_named(declaration, field):
    with pytest.raises(VariableSizedLayout, match=f"^{field}\\b"):
        dtype_of(declaration)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 65535), st.integers(0, 65535))
def test_struct_packs_a_descriptor_as_construct_builds_it(address, size, flags, next_index):
    built = DESCRIPTOR.build({"addr": address, "len": size, "flags": flags, "next": next_index})
    assert struct_of(DESCRIPTOR).pack(address, size, flags, next_index) == built
    assert struct_of(DESCRIPTOR).unpack(built) == (address, size, flags, next_index)


@pytest.mark.parametrize(
    "declaration",
    [
        "big" / Struct("a" / Int16ub),
        "gap" / Struct("a" / Int16ul, Padding(2)),
        "nested" / Struct("a" / Struct("b" / Int16ul)),
        "no_struct" / Int64ul,
    ],
)
def test_struct_refuses_what_it_could_not_pack(declaration):
    with pytest.raises(VariableSizedLayout, match=declaration.name):
        struct_of(declaration)


@pytest.mark.parametrize("size", [1, 2, 64, MAX_QUEUE_SIZE])
def test_the_sizes_of_the_split_ring_are_those_of_its_layouts(size):
    assert descriptor_table_size(size) == size * DESCRIPTOR.sizeof()
    assert available_ring_size(size) == dtype_of(available_ring(size)).itemsize
    assert used_ring_size(size) == dtype_of(used_ring(size)).itemsize == 6 + size * USED_ELEMENT.sizeof()


@given(index=st.integers(0, 65535), step_count=st.integers(0, 65536), event=st.integers(0, 65535))
def test_an_event_is_reached_when_it_is_among_the_entries_just_placed(index, step_count, event):
    placed = {(index - step) & 0xFFFF for step in range(1, step_count + 1)}
    assert event_reached(event, index, step_count) == (event in placed)


@given(data=st.data(), size=st.integers(1, 40), step_count=st.integers(0, 40))
def test_in_a_packed_ring_an_event_is_reached_when_its_descriptor_is_among_those_just_passed(data, size, step_count):
    step_count = min(step_count, size)
    place = data.draw(st.integers(0, 2 * size - 1))
    event = packed_ring.position(data.draw(st.integers(0, 2 * size - 1)), size)
    passed = {packed_ring.position(place - step, size) for step in range(1, step_count + 1)}
    now = packed_ring.position(place, size)
    assert packed_ring.event_reached(event, now, step_count, size) == (event in passed)


@given(size=st.integers(1, 32768), data=st.data())
def test_a_position_counts_on_through_two_laps(size, data):
    place = data.draw(st.integers(0, 2 * size - 1))
    position = packed_ring.position(place, size)
    assert packed_ring.is_position(position, size)
    assert packed_ring.linear(position, size) == place
    assert (position & 0x7FFF, position >> 15) == (place % size, 1 - place // size)


def test_the_sizes_of_the_packed_ring_are_those_of_its_layouts():
    assert packed_ring.ring_size(7) == 7 * packed_ring.PACKED_DESCRIPTOR.sizeof() == 112
    assert packed_ring.EVENT_SIZE == packed_ring.EVENT_ALIGNMENT == 4
