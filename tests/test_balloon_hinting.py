"""Free page hinting on the device's side: what a hint does, and what must not happen ("Free Page Hinting").

Many of these are bugs that real devices and drivers had.
"""

import numpy as np
import pytest
from device_setup import BareBalloon, Hints, of_type

from guest_agent.drivers.balloon import BALLOON_DRIVER_FEATURES
from spec.balloon import FIRST_COMMAND_ID, BalloonFeature, BalloonQueue, CommandId
from spec.device import DeviceStatus, feature_mask
from spec.mmio import Interrupt
from vdev.devices.balloon import HintState
from vdev.events import HintApplied, HintRefused, HintStateChanged
from vdev.memory import GuestMemory
from vdev.memory.backing import PrivateBacking
from vdev.memory.guest_memory import Region

pytestmark = pytest.mark.usefixtures("each_ring")

PAGE = 4096
MIB = 1 << 20
HINTS = BalloonQueue.FREE_PAGE


def started(**options):
    """Return a device that asked for hints and got its id back."""
    bare = BareBalloon(**options)
    bare.echo(bare.device.hinting.request())
    assert bare.device.hinting.state is HintState.START
    return bare


def shown_id(bare):
    return int(bare.device.config["free_page_hint_cmd_id"])


def used_lengths(bare, role=HINTS):
    return bare.queues[role].collect_batch().written_sizes.tolist()


def test_ids_begin_at_the_first_and_wrap_back_to_it():
    hinting = BareBalloon().device.hinting
    assert [hinting.request(), hinting.request()] == [FIRST_COMMAND_ID, FIRST_COMMAND_ID + 1]
    hinting.command_id = 0xFFFF_FFFF
    assert hinting.request() == FIRST_COMMAND_ID


def test_the_configuration_shows_the_id_then_stop_then_done():
    bare = BareBalloon()
    shown = [shown_id(bare)]
    command_id = bare.device.hinting.request()
    shown.append(shown_id(bare))
    bare.echo(command_id)
    shown.append(shown_id(bare))
    bare.device.hinting.stop()
    shown.append(shown_id(bare))
    bare.device.hinting.done()
    shown.append(shown_id(bare))
    assert shown == [CommandId.STOP, command_id, CommandId.STOP, CommandId.STOP, CommandId.DONE]


def test_what_the_host_says_interrupts_and_what_the_driver_says_does_not():
    bare = BareBalloon()
    command_id = bare.device.hinting.request()
    assert bare.registers.take_interrupt() == Interrupt.CONFIGURATION_CHANGE
    bare.queues[HINTS].disable_calls()
    bare.echo(command_id)
    bare.echo(CommandId.STOP)
    assert bare.registers.take_interrupt() == 0
    bare.device.hinting.stop()
    assert bare.registers.take_interrupt() == 0
    bare.device.hinting.done()
    assert bare.registers.take_interrupt() == Interrupt.CONFIGURATION_CHANGE


def test_done_reaches_the_driver_once_however_often_it_is_said():
    bare = started()
    bare.registers.take_interrupt()
    for _ in range(3):
        bare.device.hinting.done()
    assert bare.registers.take_interrupt() == Interrupt.CONFIGURATION_CHANGE
    assert len([event for event in of_type(bare.seen, HintStateChanged) if event.after == "DONE"]) == 1


@pytest.mark.parametrize("before", ["request", "start", "stop"])
def test_done_comes_also_when_the_migration_is_cancelled(before):
    bare = BareBalloon()
    command_id = bare.device.hinting.request()
    if before != "request":
        bare.echo(command_id)
    if before == "stop":
        bare.device.hinting.stop()
    bare.device.hinting.done()
    assert shown_id(bare) == CommandId.DONE


def test_a_hint_takes_its_pages_out_and_goes_back_with_nothing_written():
    bare = started()
    bare.queues[HINTS].collect_batch()
    bare.hint((4 * MIB, 2 * MIB))
    assert bare.pages == list(range(1024, 1536))
    assert bare.device.hinting.applied_count == 512
    # A used length of 1 would say that the device wrote there: the page would count as dirty.
    assert used_lengths(bare) == [0]


def test_every_segment_of_a_buffer_counts_not_only_the_first():
    bare = started()
    bare.hint((4 * MIB, PAGE), (8 * MIB, 2 * PAGE), (5 * MIB, PAGE))
    assert bare.pages == [1024, 2048, 2049, 1280]


def test_a_hint_writes_nothing_to_its_pages():
    bare = started()
    bare.memory.write(4 * MIB, b"still needed by a late write")
    bare.hint((4 * MIB, PAGE))
    assert bare.memory.read(4 * MIB, 28) == b"still needed by a late write"


def test_hints_before_the_id_is_echoed_are_refused_and_given_back():
    bare = BareBalloon()
    bare.device.hinting.request()
    bare.hint((4 * MIB, PAGE))
    assert bare.pages == []
    assert bare.device.hinting.refused_count == 1
    assert of_type(bare.seen, HintRefused) == [HintRefused(4 * MIB, PAGE, "the driver has not echoed the current id")]
    assert used_lengths(bare) == [0]


@pytest.mark.parametrize(("ending", "reason"), [("stop", "hinting is stopped"), ("done", "hinting is done")])
def test_hints_after_the_end_are_refused_and_given_back(ending, reason):
    bare = started()
    getattr(bare.device.hinting, ending)()
    bare.hint((4 * MIB, PAGE))
    assert bare.pages == []
    assert [event.reason for event in of_type(bare.seen, HintRefused)] == [reason]
    assert len(used_lengths(bare)) == 2


def test_hints_that_nobody_takes_are_refused_and_given_back():
    bare = started()
    bare.device.hinting.sink = None
    bare.hint((4 * MIB, PAGE))
    assert [event.reason for event in of_type(bare.seen, HintRefused)] == ["nobody takes hints"]


def test_a_full_queue_of_ignored_hints_comes_back_whole():
    bare = BareBalloon(listen=False)
    queue = bare.queues[HINTS]
    addresses = np.full(queue.size, 4 * MIB, np.uint64)
    sizes = np.full(queue.size, PAGE, np.uint64)
    for _ in range(3):
        assert queue.add_batch(addresses, sizes, writable=True, tokens=addresses) == queue.size
        bare.publish(HINTS)
        assert len(used_lengths(bare)) == queue.size
    assert bare.device.hinting.refused_count == 3 * queue.size


def test_a_replayed_old_id_after_stop_restarts_nothing():
    bare = started()
    command_id = bare.device.hinting.command_id
    bare.device.hinting.stop()
    bare.echo(command_id)
    bare.hint((4 * MIB, PAGE))
    assert bare.device.hinting.state is HintState.STOP
    assert bare.pages == []


def test_an_id_of_an_earlier_migration_is_not_the_one_asked_for():
    bare = started()
    old_id = bare.device.hinting.command_id
    bare.device.hinting.done()
    bare.device.hinting.request()
    bare.echo(old_id)
    bare.hint((4 * MIB, PAGE))
    assert bare.device.hinting.state is HintState.REQUESTED
    assert bare.pages == []


def test_the_drivers_stop_ends_hinting_until_it_is_asked_again():
    bare = started()
    bare.echo(CommandId.STOP)
    bare.hint((4 * MIB, PAGE))
    assert bare.pages == []
    bare.echo(bare.device.hinting.request())
    bare.hint((4 * MIB, PAGE))
    assert bare.pages == [1024]


def test_the_drivers_stop_is_not_taken_for_done():
    bare = started()
    bare.echo(CommandId.STOP)
    assert bare.device.hinting.state is HintState.STOP
    bare.echo(CommandId.DONE)
    assert bare.device.hinting.state is HintState.STOP


def test_the_id_is_little_endian():
    bare = BareBalloon()
    command_id = bare.device.hinting.request()
    bare.send(HINTS, command_id.to_bytes(4, "big"))
    assert bare.device.hinting.state is HintState.REQUESTED
    bare.send(HINTS, bytes([command_id & 0xFF, 0, 0, 0x80]))
    assert bare.device.hinting.state is HintState.START


def test_an_id_may_come_in_pieces():
    bare = BareBalloon()
    whole = bare.device.hinting.request().to_bytes(4, "little")
    bare.send(HINTS, whole[:1], whole[1:3], whole[3:])
    assert bare.device.hinting.state is HintState.START


@pytest.mark.parametrize("listen", [True, False])
def test_in_one_batch_an_id_counts_for_the_pages_behind_it_only(listen):
    bare = BareBalloon(listen=listen)
    command_id = bare.device.hinting.request().to_bytes(4, "little")
    stop = bytes(4)
    bare.post(HINTS, writable=[(1 * MIB, PAGE)])
    bare.post(HINTS, command_id)
    bare.post(HINTS, writable=[(2 * MIB, PAGE)])
    bare.post(HINTS, writable=[(3 * MIB, PAGE)])
    bare.post(HINTS, stop)
    bare.post(HINTS, writable=[(4 * MIB, PAGE)])
    bare.post(HINTS, command_id)
    bare.post(HINTS, writable=[(5 * MIB, PAGE)])
    for at in range(6, 12):
        bare.post(HINTS, writable=[(at * MIB, PAGE)])
    bare.publish(HINTS)
    assert bare.pages == [512, 768]
    assert bare.device.hinting.refused_count == 9
    assert used_lengths(bare) == [0] * 14


def test_an_id_and_pages_in_one_buffer_are_taken_in_that_order():
    bare = BareBalloon()
    command_id = bare.device.hinting.request()
    bare.send(HINTS, command_id.to_bytes(4, "little"), writable=[(2 * MIB, PAGE)])
    assert bare.pages == [512]


@pytest.mark.parametrize("listen", [True, False])
def test_the_figures_are_the_same_whether_somebody_listens_or_not(listen):
    bare = started(listen=listen)
    bare.device.hinting.sink = Hints(lambda ranges: ranges.page_count - 1)
    bare.hint((4 * MIB, 2 * PAGE))
    assert bare.device.hinting.applied_count == 1
    if listen:
        assert of_type(bare.seen, HintApplied) == [HintApplied(4 * MIB, 2 * PAGE, 2, 1)]


def test_with_nobody_listening_a_batch_of_hints_is_one_call_of_the_sink():
    bare = started(listen=False)
    calls = []
    bare.device.hinting.sink = Hints(lambda ranges: calls.append(len(ranges.first)) or ranges.page_count)
    addresses = np.arange(16, dtype=np.uint64) * np.uint64(PAGE) + np.uint64(4 * MIB)
    bare.queues[HINTS].collect_batch()
    bare.queues[HINTS].add_batch(addresses, np.full(16, PAGE, np.uint64), writable=True, tokens=addresses)
    bare.publish(HINTS)
    assert calls == [16]


def test_a_hint_above_2_gib_of_page_numbers_is_not_sign_extended():
    start = 0x8000_0000 * PAGE
    memory = GuestMemory([Region(start, PrivateBacking(16 * MIB))])
    bare = started(memory=memory)
    bare.hint((start + 4 * MIB, PAGE))
    assert bare.pages == [1024]


# Bad input


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        ((4 * MIB + 512, PAGE), "is not made of whole pages"),
        ((4 * MIB, PAGE + 1), "is not made of whole pages"),
        ((4 * MIB, 100), "is not made of whole pages"),
        ((16 * MIB, PAGE), "is not wholly in RAM"),
        ((16 * MIB - PAGE, 2 * PAGE), "is not wholly in RAM"),
        ((0xFFFF_FFFF_FFFF_F000, PAGE), "is not wholly in RAM"),
    ],
)
@pytest.mark.parametrize("listen", [True, False])
def test_a_hint_that_is_no_pages_of_ram_breaks_the_device(segment, message, listen):
    bare = started(listen=listen)
    bare.hint((4 * MIB, PAGE))
    bare.hint(segment)
    assert bare.is_broken
    assert message in bare.device.violation.message
    assert bare.device.violation.queue == BalloonQueue.FREE_PAGE
    assert bare.pages == [1024]


@pytest.mark.parametrize("size", [1, 3, 5, 8, PAGE])
def test_an_id_buffer_that_is_not_4_bytes_breaks_the_device(size):
    bare = started()
    bare.send(HINTS, bytes(size))
    assert bare.is_broken
    assert bare.device.violation.message == f"an id buffer of {size} bytes, not 4"
    assert "Free Page Hinting" in bare.device.violation.statement


def test_an_id_buffer_of_4_gib_is_refused_without_reading_it():
    bare = started(size=16 * MIB)
    bare.queues[HINTS].add([(0, 16 * MIB)] * 8, [], 0)
    bare.publish(HINTS)
    assert bare.device.violation.message == f"an id buffer of {128 * MIB} bytes, not 4"


def test_after_a_violation_the_device_leaves_its_queues_alone_and_cannot_be_asked():
    bare = started()
    bare.send(HINTS, bytes(5))
    used_before = len(used_lengths(bare))
    assert bare.registers.take_interrupt() & Interrupt.CONFIGURATION_CHANGE
    bare.hint((4 * MIB, PAGE))
    bare.echo(bare.device.hinting.command_id)
    assert used_before == 1
    assert used_lengths(bare) == []
    assert bare.device.hinting.request() is None


# Who can be asked


def test_a_driver_that_did_not_negotiate_hints_is_not_asked():
    bare = BareBalloon(features=BALLOON_DRIVER_FEATURES & ~feature_mask(BalloonFeature.FREE_PAGE_HINT))
    assert bare.device.hinting.request() is None
    assert bare.device.hinting.state is HintState.STOP


def test_a_driver_that_is_not_up_is_not_asked():
    bare = BareBalloon()
    bare.registers.reset()
    assert bare.device.hinting.request() is None


def test_a_guest_that_relies_on_a_pattern_in_its_free_pages_is_not_asked():
    assert BareBalloon(poison_value=0xAAAA_AAAA).device.hinting.request() is None
    assert BareBalloon(poison_value=0).device.hinting.request() is not None


def test_a_reset_in_the_middle_of_hinting_ends_it():
    bare = started()
    bare.registers.reset()
    assert bare.device.hinting.state is HintState.STOP
    assert shown_id(bare) == CommandId.STOP
    bare.device.hinting.done()
    assert bare.device.status == DeviceStatus.RESET
    assert bare.registers.take_interrupt() == 0
