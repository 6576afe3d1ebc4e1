"""A guest that writes whatever it likes into its rings: the host names it or serves it, and never falls over."""

import struct

from device_setup import BareBalloon
from hypothesis import given, settings
from hypothesis import strategies as st

from spec.balloon import BalloonQueue

MIB = 1 << 20
PAGE = 4096

ADDRESSES = st.one_of(
    st.sampled_from([0, 0x8000, 0x40000, 4 * MIB, 8 * MIB - 2, 16 * MIB - PAGE, 16 * MIB, (1 << 64) - PAGE, 1 << 63]),
    st.integers(0, 16 * MIB),
)
SIZES = st.one_of(st.sampled_from([0, 1, 4, 10, 16, 32, PAGE, 2 * MIB, 0x7FFF_FFFF, 0xFFFF_FFFF]), st.integers(0, 9999))
DESCRIPTORS = st.lists(st.tuples(ADDRESSES, SIZES, st.integers(0, 7), st.integers(0, 70)), min_size=1, max_size=12)
ROUND = st.tuples(
    st.sampled_from(list(BalloonQueue)), DESCRIPTORS, st.lists(st.integers(0, 70), max_size=12), st.integers(0, 70)
)


@settings(max_examples=150)
@given(rounds=st.lists(ROUND, min_size=1, max_size=4), request=st.booleans())
def test_nothing_in_the_rings_makes_the_host_raise(rounds, request):
    bare = BareBalloon(listen=request)
    if request:
        bare.device.hinting.request()
    for role, descriptors, heads, index_step in rounds:
        addresses = bare.queues[role].addresses
        table = b"".join(struct.pack("<QIHH", *descriptor) for descriptor in descriptors)
        bare.memory.write(addresses.descriptor, table)
        bare.memory.write(addresses.driver + 4, struct.pack(f"<{len(heads)}H", *heads))
        index = int.from_bytes(bare.memory.read(addresses.driver + 2, 2), "little")
        bare.memory.write(addresses.driver + 2, struct.pack("<H", index + index_step & 0xFFFF))
        bare.registers.notify(role)
        bare.device.hinting.stop()
        bare.device.hinting.request()
        bare.device.request_statistics()
    bare.device.hinting.done()
    bare.device.save()
    if bare.is_broken:
        assert bare.device.violation.statement
        assert bare.device.hinting.request() is None
        assert not bare.device.request_statistics()
    bare.registers.acknowledge_device()
    assert not bare.is_broken
