"""Our drivers at vhost-user back ends: started, stopped, moved to another one, and what is left when one is gone."""

import gc
import select
import time

import pytest
from device_setup import Hints
from front_end_setup import MIB, PATIENCE, balloon_device, front_end, open_fd_count, serving, shared_memory

from guest_agent.drivers.entropy import ENTROPY_DRIVER_FEATURES, EntropyDriver
from guest_agent.kernel import Guest, GuestConfig
from guest_agent.page_database import Owner
from guest_agent.vhost_user import BackEndLost, BackEndRefused, VhostUserTransport
from guest_agent.virtqueue import make_driver_queue
from spec.balloon import CONFIG, BalloonFeature
from spec.device import DeviceStatus, Feature, feature_mask
from spec.vhost_user import ProtocolFeature
from vdev.devices.entropy import EntropyDevice
from vdev.errors import UserError
from vdev.memory import GuestMemory

pytestmark = pytest.mark.usefixtures("no_garbage_of_others")


class NoBus:
    """Exits of a guest that has nothing on its bus."""

    def read(self, address, size):
        raise AssertionError(f"a read at {address:#x}")

    def write(self, address, size, value):
        raise AssertionError(f"a write at {address:#x}")


class LocalGuest:
    """A guest in this process, on slots that back ends serve."""

    def __init__(self, memory, slots, state=None, **options):
        self.memory = memory
        self.slots = slots
        if state is None:
            config = GuestConfig(**{"rate": 1000, "workload": "churn", **options})
            self.guest = Guest.boot(memory, NoBus(), config, slots=slots)
        else:
            self.guest = Guest.restore(memory, NoBus(), state, slots=slots)

    @property
    def driver(self):
        return self.guest.drivers[0]

    def live_until(self, condition):
        """Run the guest as its process does, until a condition holds."""
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, "the guest did not get there"
            self.live_once()

    def live_once(self):
        delay = self.guest.step(time.monotonic())
        readable, _, _ = select.select(self.guest.filenos(), [], [], delay)
        if readable:
            self.guest.handle_interrupt()

    def live(self, operations):
        wanted = self.guest.operation_count + operations
        self.live_until(lambda: self.guest.operation_count >= wanted)

    def held(self, owner):
        return int((1 << self.guest.allocator.blocks_of(owner).orders).sum())


def started_balloon(served, memory, **options):
    transport = front_end(served, memory, **options)
    return LocalGuest(memory, [transport])


class TestNegotiation:
    def test_it_agrees_on_all_that_both_know(self):
        with serving(balloon_device()) as served:
            transport = front_end(served, shared_memory())
            agreed = {feature for feature in ProtocolFeature if transport.protocol_features >> feature & 1}
            assert agreed >= {
                ProtocolFeature.MQ,
                ProtocolFeature.REPLY_ACK,
                ProtocolFeature.CONFIG,
                ProtocolFeature.RESET_DEVICE,
                ProtocolFeature.CONFIGURE_MEM_SLOTS,
                ProtocolFeature.STATUS,
            }
            transport.close()

    def test_bits_between_the_two_ends_are_hidden_from_drivers(self):
        with serving(balloon_device()) as served:
            transport = front_end(served, shared_memory())
            offered = transport.offered_features()
            assert offered >> Feature.VERSION_1 & 1
            assert not offered & feature_mask(26, Feature.VHOST_USER_PROTOCOL_FEATURES)
            transport.close()

    def test_the_status_goes_up_as_the_text_has_it(self):
        with serving(balloon_device()) as served:
            transport = front_end(served, shared_memory())
            transport.acknowledge_device()
            assert transport.status == DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER
            transport.negotiate(feature_mask(Feature.VERSION_1))
            assert served.do(lambda: served.device.features) == feature_mask(Feature.VERSION_1)
            assert transport.status & DeviceStatus.FEATURES_OK
            transport.close()

    @pytest.mark.parametrize("regions", [1, 3, 8, 9, 20])
    def test_ram_in_many_regions_is_shared_by_table_or_one_by_one(self, regions):
        memory = shared_memory((0, 16 * MIB), *((n << 32, MIB) for n in range(1, regions)))
        with serving(balloon_device()) as served:
            guest = started_balloon(served, memory)
            served.do(served.device.set_target, 100)
            guest.live_until(lambda: guest.driver.actual == 100)
            assert served.do(lambda: len(served.device.memory.regions)) == regions
            guest.slots[0].close()

    def test_nothing_stays_open(self):
        memory = shared_memory()
        gc.collect()  # mappings of earlier tests
        before = open_fd_count()
        with serving(balloon_device()) as served:
            guest = started_balloon(served, memory)
            guest.live(20)
            guest.slots[0].close()
        assert open_fd_count() <= before


@pytest.mark.parametrize("without", [None, *ProtocolFeature])
def test_a_balloon_is_filled_whichever_protocol_feature_is_missing(without):
    wanted = (1 << 64) - 1 if without is None else ~(1 << without) & ((1 << 64) - 1)
    with serving(balloon_device()) as served:
        transport = front_end(served, shared_memory(), wanted_protocol_features=wanted)
        if without is ProtocolFeature.CONFIG:
            with pytest.raises(Exception, match="has no configuration space"):
                transport.read_config(CONFIG)
            transport.close()
            return
        served.do(served.device.set_target, 700)
        guest = LocalGuest(transport._memory, [transport])
        guest.live_until(lambda: guest.driver.actual == 700)
        assert served.do(lambda: served.device.actual) == 700
        transport.close()
    assert not served.violations


class TestBalloon:
    def test_it_is_filled_and_emptied_as_the_host_asks(self):
        with serving(balloon_device()) as served:
            guest = started_balloon(served, shared_memory())
            for target in (1500, 200, 900):
                served.do(served.device.set_target, target)
                guest.live_until(lambda target=target: served.do(lambda: served.device.actual) == target)
                assert guest.held(Owner.BALLOON) == target
            assert guest.guest.verify().mismatched == 0
            guest.slots[0].close()

    def test_hints_are_given_and_the_memory_comes_back(self):
        with serving(balloon_device()) as served:
            guest = started_balloon(served, shared_memory())
            hinted = []
            served.device.hinting.sink = Hints(lambda ranges: hinted.append(ranges.page_count) or ranges.page_count)
            served.do(served.device.hinting.request)
            guest.live_until(lambda: guest.held(Owner.HINTED) >= 1024 and sum(hinted) >= 1024)
            served.do(served.device.hinting.done)
            guest.live_until(lambda: guest.held(Owner.HINTED) == 0)
            assert guest.guest.verify().mismatched == 0
            guest.slots[0].close()

    def test_statistics_are_answered(self):
        with serving(balloon_device()) as served:
            guest = started_balloon(served, shared_memory())
            guest.live_until(lambda: served.do(served.device.request_statistics))
            guest.live_until(lambda: served.do(lambda: bool(served.device.statistics)))
            guest.slots[0].close()


class TestMoving:
    def test_rings_stand_still_while_suspended_and_go_on(self):
        with serving(balloon_device()) as served:
            guest = started_balloon(served, shared_memory())
            served.do(served.device.set_target, 500)
            guest.live_until(lambda: guest.driver.actual == 500)
            for target in (600, 400, 800):
                guest.guest.suspend_devices()
                assert guest.guest.filenos() == []
                assert served.do(lambda: dict(served.device.queues)) == {}
                served.do(served.device.set_target, target)
                guest.guest.resume_devices()
                guest.live_until(lambda target=target: guest.driver.actual == target)
            assert guest.guest.verify().mismatched == 0
            guest.slots[0].close()

    def test_a_guest_that_is_paused_before_its_first_request_keeps_what_it_wrote(self):
        """Its rings go on from their very beginning, as those of a guest that was reset would."""
        with serving(balloon_device()) as served:
            memory = shared_memory()
            slot = front_end(served, memory)
            guest = LocalGuest(memory, [slot], poison_value=0x5A5A5A5A, rate=0)
            assert served.do(lambda: int(served.device.config["poison_val"])) == 0x5A5A5A5A
            guest.guest.suspend_devices()
            guest.guest.resume_devices()
            assert served.do(lambda: int(served.device.config["poison_val"])) == 0x5A5A5A5A
            served.do(served.device.set_target, 100)
            guest.live_until(lambda: served.do(lambda: served.device.actual) == 100)
            slot.close()

    def test_a_guest_goes_on_in_another_process_at_another_back_end(self):
        memory = shared_memory()
        with serving(balloon_device()) as source, serving(balloon_device()) as destination:
            guest = started_balloon(source, memory)
            source.do(source.device.set_target, 500)
            guest.live_until(lambda: guest.driver.actual == 500)
            guest.guest.suspend_devices()
            state = guest.guest.save()
            guest.slots[0].close()
            arrived = shared_memory()
            for theirs, ours in zip(memory.regions, arrived.regions, strict=True):
                ours.backing.data[:] = theirs.backing.data
            moved = LocalGuest(arrived, [front_end(destination, arrived)], state)
            destination.do(destination.device.set_target, 650)
            moved.guest.resume_devices()
            moved.live_until(lambda: moved.driver.actual == 650)
            moved.live(50)
            assert moved.held(Owner.BALLOON) == 650
            assert moved.guest.verify().mismatched == 0
            moved.slots[0].close()
        assert not source.violations
        assert not destination.violations

    def test_a_guest_that_may_not_go_on_there_says_why(self):
        memory = shared_memory()
        with serving(balloon_device()) as source, serving(balloon_device(features=0)) as destination:
            guest = started_balloon(source, memory)
            guest.guest.suspend_devices()
            state = guest.guest.save()
            guest.slots[0].close()
            transport = front_end(destination, memory)
            with pytest.raises(Exception, match=r"the device does not offer features 0x2f"):
                Guest.restore(memory, NoBus(), state, slots=[transport])
            transport.close()

    def test_it_reconnects_to_a_back_end_that_was_gone(self):
        memory = shared_memory()
        with serving(balloon_device()) as first, serving(balloon_device()) as second:
            guest = started_balloon(first, memory)
            transport = guest.slots[0]
            first.do(first.device.set_target, 300)
            guest.live_until(lambda: guest.driver.actual == 300)
            first.stop()
            transport.reconnect(second.connect())
            transport.resume()
            second.do(second.device.set_target, 450)
            guest.live_until(lambda: guest.driver.actual == 450)
            assert transport.lost is None
            assert guest.guest.verify().mismatched == 0
            transport.close()


class TestGone:
    def test_a_guest_lives_on_when_its_back_end_is_gone(self):
        with serving(balloon_device()) as served:
            guest = started_balloon(served, shared_memory())
            served.do(served.device.set_target, 300)
            guest.live_until(lambda: guest.driver.actual == 300)
            guest.guest.suspend_devices()
        guest.guest.resume_devices()
        guest.live_until(lambda: guest.driver.gave_up is not None)
        assert "the back end closed the connection" in guest.driver.gave_up
        assert guest.held(Owner.BALLOON) == 0
        guest.live(50)
        assert guest.guest.filenos() == []
        assert guest.guest.verify().mismatched == 0
        with pytest.raises(BackEndLost):
            guest.slots[0].reset()
        state = guest.guest.save()
        with serving(balloon_device()) as other:
            slots = [front_end(other, guest.memory)]
            moved = LocalGuest(guest.memory, slots, state)
            moved.guest.resume_devices()
            moved.live(20)
            assert moved.driver.gave_up is not None
            slots[0].close()

    def test_a_back_end_that_is_gone_before_the_first_word_is_named(self):
        with serving(balloon_device()) as served:
            sock = served.connect()
        with pytest.raises(
            BackEndLost, match=r"balloon.sock: the back end closed the connection before it had SET_OWNER"
        ):
            VhostUserTransport(shared_memory(), sock, device_id=5, name="balloon.sock", patience=PATIENCE)


def test_the_balloon_takes_only_the_features_that_it_may():
    with serving(balloon_device()) as served:
        transport = front_end(served, shared_memory())
        config = {"wanted_features": feature_mask(BalloonFeature.STATS_VQ), "ring_features": 0}
        guest = LocalGuest(transport._memory, [transport], **config)
        assert guest.driver.features == feature_mask(Feature.VERSION_1, BalloonFeature.STATS_VQ)
        transport.close()


class TestDeviceState:
    def test_a_balloon_moves_with_what_is_in_it(self):
        memory = shared_memory()
        with serving(balloon_device()) as source, serving(balloon_device()) as destination:
            guest = started_balloon(source, memory)
            source.do(source.device.set_target, 500)
            guest.live_until(lambda: guest.driver.actual == 500)
            guest.guest.suspend_devices()
            device_state = guest.slots[0].save_device_state()
            state = guest.guest.save()
            guest.slots[0].close()
            moved = LocalGuest(memory, [front_end(destination, memory)], state)
            moved.slots[0].load_device_state(device_state)
            moved.guest.resume_devices()
            assert destination.do(lambda: destination.device.inflation.inflated_count) == 500
            assert destination.do(lambda: destination.device.actual) == 500
            destination.do(destination.device.set_target, 100)
            moved.live_until(lambda: destination.do(lambda: destination.device.inflation.inflated_count) == 100)
            assert moved.guest.verify().mismatched == 0
            moved.slots[0].close()
        assert not destination.violations

    def test_a_state_that_is_none_is_refused(self):
        memory = shared_memory()
        with serving(balloon_device()) as served:
            guest = started_balloon(served, memory)
            guest.guest.suspend_devices()
            with pytest.raises(BackEndRefused, match="its state did not get over"):
                guest.slots[0].load_device_state(b"nothing of the kind" * 1000)
            guest.slots[0].close()


class TestWriteLog:
    def test_it_has_the_pages_that_the_back_end_wrote_and_no_others(self):
        memory = shared_memory((0, 8 * MIB), (1 << 30, MIB))
        with serving(EntropyDevice(GuestMemory.absent())) as served:
            transport = front_end(served, memory)
            driver = EntropyDriver.start(transport, memory, 0x4000)
            with pytest.raises(ValueError, match="call start_write_log first"):
                transport.take_written()
            transport.start_write_log()
            assert transport.take_written().tolist() == []
            for _ in range(3):
                assert get_bytes(driver, transport)
                written = set(transport.take_written().tolist())
                assert 5 in written  # the buffer
                assert written <= set(range(4, 4 + EntropyDriver.area_size() // 4096))
            transport.suspend()
            transport.resume()
            assert get_bytes(driver, transport)
            assert 5 in transport.stop_write_log().tolist()
            assert get_bytes(driver, transport)
            transport.start_write_log()
            assert transport.take_written().tolist() == []
            transport.close()
        assert not served.violations

    def test_a_back_end_that_does_not_log_says_so(self):
        without = ~(1 << ProtocolFeature.LOG_SHMFD)
        with serving(EntropyDevice(GuestMemory.absent())) as served:
            transport = front_end(served, shared_memory(), wanted_protocol_features=without & (1 << 64) - 1)
            with pytest.raises(BackEndRefused, match="does not log what it writes"):
                transport.start_write_log()
            transport.close()


def get_bytes(driver, transport):
    assert driver.ask()
    end = time.monotonic() + PATIENCE
    while not (data := driver.take()):
        assert time.monotonic() < end
        if transport.wait_interrupt(1):
            driver.handle_interrupt()
        driver.work()
        assert driver.gave_up is None
    return data


class Stuck(EntropyDevice):
    """An entropy device that takes requests and never answers."""

    def handle_queue(self, number):
        while self.queues[number].pop() is not None:
            pass


class Overtaking(EntropyDevice):
    """An entropy device that answers the last of three requests alone."""

    def handle_queue(self, number):
        chains = list(self.chains(number))
        if chains:
            assert len(chains) == 3
            self.queues[number].push(chains[-1].head, chains[-1].write(self.memory, b"last"))


class TestLostWithRequestsUnderWay:
    @pytest.mark.parametrize("packed", [False, True])
    def test_what_a_dead_back_end_had_begun_is_done_by_the_next(self, packed):
        memory = shared_memory()
        ring = 0 if packed else feature_mask(Feature.RING_PACKED)
        with serving(Stuck(GuestMemory.absent())) as first, serving(EntropyDevice(GuestMemory.absent())) as second:
            transport = front_end(first, memory)
            driver = EntropyDriver.start(transport, memory, 0x4000, wanted_features=ENTROPY_DRIVER_FEATURES & ~ring)
            assert bool(driver.features >> Feature.RING_PACKED & 1) == packed
            driver.ask()
            queue = first.device.queues[0]
            wait_until(lambda: first.do(lambda: len(queue.save().outstanding) == 1))
            first.stop()
            transport.reconnect(second.connect())
            transport.resume()
            end = time.monotonic() + PATIENCE
            while not driver.take():
                assert time.monotonic() < end
                if transport.wait_interrupt(1):
                    driver.handle_interrupt()
                driver.work()
                assert driver.gave_up is None
            assert get_bytes(driver, transport)
            transport.close()
        assert not second.violations

    @pytest.mark.parametrize("packed", [False, True])
    def test_a_buffer_that_was_overtaken_is_not_lost(self, packed):
        memory = shared_memory()
        ring = feature_mask(Feature.RING_PACKED) if packed else 0
        with serving(Overtaking(GuestMemory.absent())) as first, serving(EntropyDevice(GuestMemory.absent())) as second:
            transport = front_end(first, memory)
            transport.acknowledge_device()
            features = transport.negotiate(feature_mask(Feature.VERSION_1) | ring)
            queue = make_driver_queue(memory, 0, 8, 0x4000, features)
            transport.set_up_queue(0, queue.addresses)
            transport.drive()
            for token in (1, 2, 3):
                queue.add([], [(0x20000 + 64 * token, 64)], token)
            transport.publish(queue)
            wait_until(queue.has_used)
            assert queue.collect().token == 3
            first.stop()
            transport.reconnect(second.connect())
            transport.resume()
            wait_until(lambda: second.do(lambda: second.device.queues[0].save().outstanding == ()))
            assert sorted([queue.collect().token, queue.collect().token]) == [1, 2]
            assert queue.collect() is None
            transport.close()
        assert not second.violations

    def test_a_packed_ring_without_notes_of_what_is_under_way_cannot_go_on(self):
        without = ~(1 << ProtocolFeature.INFLIGHT_SHMFD) & (1 << 64) - 1
        with (
            serving(EntropyDevice(GuestMemory.absent())) as first,
            serving(EntropyDevice(GuestMemory.absent())) as second,
        ):
            transport = front_end(first, shared_memory(), wanted_protocol_features=without)
            EntropyDriver.start(transport, transport._memory, 0x4000)
            first.stop()
            with pytest.raises(UserError, match="packed ring 0 cannot go on"):
                transport.reconnect(second.connect())
            transport.close()


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)
