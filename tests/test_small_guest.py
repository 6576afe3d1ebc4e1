import json

import pytest

from guest_agent.small_guest import GuestShape, SmallGuest
from guest_agent.vcpu_state import VcpuStateBroken
from guest_agent.virtqueue.queue import NoQueueHere
from vdev.bus import MmioBus
from vdev.devices.balloon import BalloonDevice
from vdev.errors import UserError
from vdev.memory import GuestMemory
from vdev.mmio import MmioRegisters


def booted(**shape):
    shape = GuestShape(**shape)
    memory = GuestMemory.private(shape.memory_size)
    device = BalloonDevice(memory)
    bus = MmioBus([MmioRegisters(device)])
    guest = SmallGuest.boot(memory, bus, bus.addresses[0], shape)
    return guest, device, bus


def answer(guest):
    """Let the driver work until it has nothing to do; returns what it did."""
    done = []
    while (act := guest.next_act) is not None:
        guest.do(act)
        done.append(act)
    return done


@pytest.fixture(params=[False, True], ids=["split", "packed"])
def packed(request):
    return request.param


def test_a_guest_answers_one_page_a_hint_until_the_bound(packed):
    guest, device, _ = booted(pages=3, hints=2, packed=packed)
    device.hinting.request()
    guest.handle_interrupt()
    acts = [act for act in answer(guest) if act != "reap"]
    assert acts == ["look", "announce", "collect", "queue", "collect", "queue", "collect", "end"]
    assert [guest.use(page) for page in range(3)] == ["held", "held", "free"]
    assert not guest.can_hint


def test_held_pages_are_written_after_they_are_taken_back(packed):
    guest, device, _ = booted(pages=1, packed=packed)
    device.hinting.request()
    guest.handle_interrupt()
    answer(guest)
    assert guest.acts() == [("write", 0)]
    guest.do("write", 0)
    assert (guest.use(0), guest.version(0), guest.wanted) == ("used", 1, [1])


def test_done_frees_what_is_held():
    guest, device, _ = booted(pages=2)
    device.hinting.request()
    guest.handle_interrupt()
    answer(guest)
    device.hinting.done()
    guest.handle_interrupt()
    answer(guest)
    assert [guest.use(page) for page in range(2)] == ["free", "free"]


def test_acts_come_in_order_and_only_where_they_are_possible():
    guest, device, _ = booted(pages=2)
    guest.do("write", 1)
    device.hinting.request()
    guest.handle_interrupt()
    assert guest.acts() == [("look", None), ("write", 0), ("write", 1), ("free", 1)]
    for name, page in (("free", 0), ("queue", None), ("write", None), ("look", 0)):
        with pytest.raises(ValueError, match="cannot"):
            guest.do(name, page)


def test_stale_pages_are_named_and_free_ones_are_not():
    guest, _, _ = booted(pages=3)
    for page in range(3):
        guest.do("write", page)
    guest.do("free", 2)
    guest.memory.write(1 * 4096, bytes(8))
    guest.memory.write(2 * 4096, bytes(8))
    assert guest.verify() == [1]


@pytest.mark.parametrize("steps", range(0, 12, 2))
def test_ram_and_the_saved_state_are_enough_to_go_on(steps, packed):
    guest, device, bus = booted(pages=2, hints=4, packed=packed)
    guest.do("write", 0)
    device.hinting.request()
    guest.handle_interrupt()
    for _ in range(steps):
        if guest.next_act is not None:
            guest.do(guest.next_act)
    other = SmallGuest.restore(guest.memory, bus, guest.save())
    assert other.acts() == guest.acts()
    assert (other.wanted, other.hint_count) == (guest.wanted, guest.hint_count)
    answer(other)
    assert other.use(1) == "held"
    assert other.verify() == []


def test_bytes_that_are_no_state_are_refused():
    guest, _, bus = booted(pages=1)
    saved = json.loads(guest.save())
    unfit = [json.dumps({**saved, **change}).encode() for change in ({"owners": []}, {"owners": [77]}, {"x": 1})]
    for broken in (b"", b"[]", b"{}", *unfit):
        with pytest.raises(VcpuStateBroken, match="cannot be read"):
            SmallGuest.restore(guest.memory, bus, broken)


def test_ram_without_the_driver_is_refused():
    guest, _, bus = booted(pages=1)
    with pytest.raises(NoQueueHere):
        SmallGuest.restore(GuestMemory.private(guest.memory.size), bus, guest.save())


@pytest.mark.parametrize("shape", [{"pages": 0}, {"pages": 65}, {"hints": -1}, {"holds": "for ever"}])
def test_a_shape_that_cannot_be_is_refused(shape):
    with pytest.raises(UserError):
        GuestShape(**shape)
