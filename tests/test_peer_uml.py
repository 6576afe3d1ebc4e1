"""User-mode Linux, a kernel that is a program, drives our devices over vhost-user: no hypervisor, no privileges."""

import functools
import hashlib
import os
import random
import subprocess

import pytest
from device_setup import Hints
from peers import guest, image, parts
from peers.back_end import FORMATS, CountedBytes, ServedBalloon, served_block, served_entropy, serving, until
from peers.have import have

from spec.balloon import BalloonFeature, StatisticTag
from spec.device import Feature
from vdev.devices.balloon import HintState

pytestmark = [pytest.mark.peer_uml, pytest.mark.process]

MIB = 1 << 20
BLOCK_PAGES = 4 * MIB // 4096
RING_FEATURES = (Feature.EVENT_IDX, Feature.INDIRECT_DESC)

# The guest's own figures move a little by themselves: caches, per-CPU lists, the shell that reads them.
SLACK = 8 * MIB


@pytest.fixture
def uml():
    """The command line of a user-mode Linux with these devices."""
    have(guest.user_mode_linux)
    return guest.user_mode_linux


@pytest.fixture
def uml_with_entropy():
    """The same with a kernel that has an entropy driver."""
    have(lambda: guest.user_mode_linux(kernel=image.UML_WITH_ENTROPY))
    return functools.partial(guest.user_mode_linux, kernel=image.UML_WITH_ENTROPY)


def sizes(ranges):
    return sum(end - first for first, end in ranges) * 4096


def quiet_balloon(*ring_features):
    """A balloon without free page reporting: while the guest reports, it holds what it reports, and is not to here."""
    balloon = ServedBalloon(*ring_features)
    balloon.device.offered_features &= ~(1 << BalloonFeature.PAGE_REPORTING)
    return balloon


async def free_memory(running):
    return (await running.memory())["MemFree"]


async def test_the_real_driver_takes_what_our_balloon_offers_and_counts_queues_as_we_do(uml, tmp_path):
    balloon = ServedBalloon(*RING_FEATURES)
    async with serving(balloon.device, tmp_path / "s"), guest.boot(uml(f"{tmp_path}/s:5")) as running:
        bits = await running.run("cat /sys/bus/virtio/devices/virtio0/features")
        assert balloon.device.features == sum(1 << number for number, bit in enumerate(bits.strip()) if bit == "1")
        for feature in (*RING_FEATURES, *BalloonFeature):
            # It neither poisons nor initialises free pages, and says so.
            assert balloon.device.has_feature(feature) == (feature is not BalloonFeature.PAGE_POISON), feature
        assert await running.run("cat /sys/bus/virtio/devices/virtio0/status") == "0x0000000f\n"
        assert sorted(balloon.device.queues) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", ["split, suppression", "packed", "packed, suppression"])
async def test_hints_are_the_memory_that_the_guest_says_is_free_and_done_gives_it_back(name, uml, tmp_path):
    balloon = quiet_balloon(*FORMATS[name])
    async with serving(balloon.device, tmp_path / "s"), guest.boot(uml(f"{tmp_path}/s:5")) as running:
        assert balloon.device.has_feature(Feature.RING_PACKED) == name.startswith("packed")
        free = await free_memory(running)
        hints = await balloon.hints()
        # Whole blocks of 4 MiB only: what is free in smaller pieces stays with the guest.
        assert 0.85 * free <= sizes(hints) <= free + SLACK
        (region,) = balloon.device.memory.regions
        first_page = region.guest_address // 4096
        assert all(end - first == BLOCK_PAGES and (first_page + first) % BLOCK_PAGES == 0 for first, end in hints)
        assert len(set(hints)) == len(hints)

        async def is_held():
            # Closer than a block: one that was lost on the way would show.
            return abs(free - sizes(hints) - await free_memory(running)) < 2 * MIB

        await until(is_held, "the guest has as much less free memory as it hinted")
        balloon.device.hinting.done()

        async def is_back():
            return await free_memory(running) >= free - SLACK

        await until(is_back, "the guest has its free memory back")
        assert balloon.device.hinting.refused_count == 0


async def test_a_stop_midway_ends_the_hints_and_a_second_id_brings_the_rest(uml, tmp_path):
    balloon = quiet_balloon(*RING_FEATURES)
    hinting = balloon.device.hinting
    command = uml(f"{tmp_path}/s:5", memory_mib=1536)
    async with serving(balloon.device, tmp_path / "s"), guest.boot(command) as running:
        free = await free_memory(running)
        early = []

        def take_and_stop(ranges):
            early.extend(zip(ranges.first.tolist(), ranges.end.tolist(), strict=True))
            hinting.stop()
            return ranges.page_count

        hinting.sink = Hints(take_and_stop)
        first_id = hinting.request()
        await until(lambda: hinting.state is HintState.STOP, "the first hints come")
        held = free - await free_memory(running)
        # A guest has more blocks than the ring has room for: it cannot have told all before it was stopped.
        assert 0 < sizes(early) < free - 2 * SLACK
        # What was in the ring when STOP came is held by the guest all the same.
        assert held >= sizes(early) - SLACK

        rest = []
        assert balloon.ask_for_hints(rest) == first_id + 1
        await until(lambda: hinting.state is HintState.STOP, "the second id's hints end")
        assert not set(early) & set(rest)
        left = await free_memory(running)
        assert left <= 0.15 * free
        assert free - left - sizes(rest) >= sizes(early) - SLACK

        hinting.done()

        async def is_back():
            return await free_memory(running) >= free - SLACK

        await until(is_back, "the guest has its free memory back")


async def test_the_balloon_takes_the_guests_memory_and_gives_it_back(uml, tmp_path):
    balloon = quiet_balloon(*RING_FEATURES)
    async with serving(balloon.device, tmp_path / "s"), guest.boot(uml(f"{tmp_path}/s:5")) as running:
        before = await running.memory()
        await balloon.inflate(64 * MIB)
        inflated = await running.memory()
        assert abs(before["MemFree"] - inflated["MemFree"] - 64 * MIB) <= SLACK
        # With DEFLATE_ON_OOM the guest counts the balloon as its own still.
        assert inflated["MemTotal"] == before["MemTotal"]
        assert (await balloon.statistics())[StatisticTag.FREE_MEMORY] <= before["MemFree"] - 64 * MIB + SLACK

        await balloon.inflate(16 * MIB)
        assert abs(before["MemFree"] - await free_memory(running) - 16 * MIB) <= SLACK
        await balloon.inflate(0)
        assert abs(before["MemFree"] - await free_memory(running)) <= SLACK


async def test_without_deflate_on_oom_the_balloon_makes_the_guest_smaller(uml, tmp_path):
    balloon = quiet_balloon(*RING_FEATURES)
    balloon.device.offered_features &= ~(1 << BalloonFeature.DEFLATE_ON_OOM)
    async with serving(balloon.device, tmp_path / "s"), guest.boot(uml(f"{tmp_path}/s:5")) as running:
        before = (await running.memory())["MemTotal"]
        await balloon.inflate(64 * MIB)
        assert (await running.memory())["MemTotal"] == before - 64 * MIB
        await balloon.inflate(0)
        assert (await running.memory())["MemTotal"] == before


async def test_what_the_balloon_gets_leaves_the_hosts_memory(uml, tmp_path):
    balloon = quiet_balloon(*RING_FEATURES)
    async with serving(balloon.device, tmp_path / "s"), guest.boot(uml(f"{tmp_path}/s:5")) as running:
        # Pages that were never written cost the host nothing: have the guest write some, and let go of them.
        await running.run("dd if=/dev/zero of=/dirt bs=1M count=160 && rm /dirt")
        before = host_memory(balloon)
        assert before >= 160 * MIB
        await balloon.inflate((await free_memory(running) - 24 * MIB) & -4096)
        assert before - host_memory(balloon) >= 100 * MIB
        assert balloon.device.inflation.returned_size >= 100 * MIB
        await balloon.inflate(0)


def host_memory(balloon):
    return sum(os.fstat(region.backing.fd).st_blocks * 512 for region in balloon.device.memory.regions)


async def test_statistics_are_the_guests_own_figures(uml, tmp_path):
    balloon = quiet_balloon(*RING_FEATURES)
    async with serving(balloon.device, tmp_path / "s"), guest.boot(uml(f"{tmp_path}/s:5")) as running:
        memory = await running.memory()
        statistics = await balloon.statistics()
        assert statistics[StatisticTag.TOTAL_MEMORY] == memory["MemTotal"]
        assert abs(statistics[StatisticTag.FREE_MEMORY] - memory["MemFree"]) <= SLACK
        assert abs(statistics[StatisticTag.AVAILABLE_MEMORY] - memory["MemAvailable"]) <= SLACK

        await running.run("dd if=/dev/zero of=/file bs=1M count=32")
        later = await balloon.statistics()
        assert abs(statistics[StatisticTag.FREE_MEMORY] - later[StatisticTag.FREE_MEMORY] - 32 * MIB) <= SLACK
        assert abs(later[StatisticTag.DISK_CACHES] - statistics[StatisticTag.DISK_CACHES] - 32 * MIB) <= SLACK


async def test_reported_free_pages_leave_the_hosts_memory(uml, tmp_path):
    balloon = ServedBalloon(*RING_FEATURES)
    async with serving(balloon.device, tmp_path / "s"), guest.boot(uml(f"{tmp_path}/s:5")) as running:
        reporting = balloon.device.reporting
        await until(lambda: reporting.reported_count * 4096 >= 100 * MIB, "the guest reports its free pages")
        await running.run("dd if=/dev/zero of=/dirt bs=1M count=128 && sync")
        dirty, returned = host_memory(balloon), reporting.returned_size
        assert dirty >= 128 * MIB
        await running.run("rm /dirt")
        await until(lambda: reporting.returned_size - returned >= 100 * MIB, "the guest reports what it let go of")
        assert dirty - host_memory(balloon) >= 100 * MIB


async def test_a_file_system_on_our_disk_is_mounted_written_and_read_from_inside(uml, tmp_path):
    disk = tmp_path / "disk"
    content = random.Random(5).randbytes(3 * MIB + 77)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "from-outside").write_bytes(content)
    make_file_system(disk, 32 * MIB, tmp_path / "tree")
    device = served_block(disk, *RING_FEATURES)
    async with serving(device, tmp_path / "s"), guest.boot(uml(f"{tmp_path}/s:2")) as running:
        assert await running.run("cat /sys/block/vda/size") == f"{32 * MIB // 512}\n"
        await running.run("mount -t ext4 /dev/vda /mnt")
        assert hashlib.sha256(content).hexdigest() in await running.run("sha256sum /mnt/from-outside")
        inside = await running.run(
            "dd if=/dev/urandom of=/mnt/from-inside bs=64k count=80 && sync && sha256sum /mnt/from-inside"
        )
        await running.run("rm /mnt/from-outside && umount /mnt")
        read_count, _, _, _, write_count = map(int, (await running.run("cat /sys/block/vda/stat")).split()[:5])
        assert device.request_count >= read_count + write_count > 2
        assert device.failed_count == 0
    device.close()
    # The file is the disk: what the guest wrote is there when nothing runs any more.
    check_file_system(disk)
    written = extract(disk, "from-inside")
    assert len(written) == 80 * 65536
    assert hashlib.sha256(written).hexdigest() in inside


def make_file_system(path, size, tree):
    with path.open("wb") as file:
        file.truncate(size)
    make = parts.BOOKWORM.command("sbin/mke2fs")
    subprocess.run([*make, "-q", "-F", "-t", "ext4", "-d", str(tree), str(path)], check=True, timeout=60)


def check_file_system(path):
    check = parts.BOOKWORM.command("sbin/e2fsck")
    subprocess.run([*check, "-f", "-n", str(path)], check=True, capture_output=True, timeout=60)


def extract(path, name):
    """A file of an ext4 image, read by the tool that needs no mount."""
    debugfs = parts.BOOKWORM.command("sbin/debugfs")
    done = subprocess.run([*debugfs, "-R", f"cat {name}", str(path)], check=True, capture_output=True, timeout=60)
    return done.stdout


async def test_raw_sectors_of_our_disk_are_the_files_bytes(uml, tmp_path):
    disk = tmp_path / "disk"
    content = random.Random(6).randbytes(8 * MIB)
    disk.write_bytes(content)
    device = served_block(disk, *RING_FEATURES, serial="sectors")
    async with serving(device, tmp_path / "s"), guest.boot(uml(f"{tmp_path}/s:2")) as running:
        assert await running.run("cat /sys/block/vda/serial") == "sectors"
        assert hashlib.sha256(content).hexdigest() in await running.run("sha256sum /dev/vda")
        await running.run("dd if=/dev/vda of=/dev/vda bs=4k skip=1000 seek=7 count=3 conv=notrunc,fsync")
        await running.run("blkdiscard -o 1048576 -l 65536 /dev/vda")
        seen_inside = await running.run("sha256sum /dev/vda")
    device.close()
    expected = bytearray(content)
    expected[7 * 4096 : 10 * 4096] = content[1000 * 4096 : 1003 * 4096]
    got = disk.read_bytes()
    assert hashlib.sha256(got).hexdigest() in seen_inside
    assert got[:MIB] == expected[:MIB]
    assert got[MIB + 65536 :] == expected[MIB + 65536 :]


async def test_the_guests_hardware_random_numbers_are_those_of_our_entropy_device(uml_with_entropy, tmp_path):
    command = uml_with_entropy(f"{tmp_path}/s:4")
    source = CountedBytes()
    device = served_entropy(source, *RING_FEATURES)
    async with serving(device, tmp_path / "s"), guest.boot(command) as running:
        # This kernel is also given the host's random numbers, and would take those.
        await running.run("echo virtio_rng.0 > /sys/class/misc/hw_random/rng_current")
        read = bytes.fromhex("".join((await running.run("head -c 4096 /dev/hwrng | od -An -v -tx1")).split()))
        assert len(read) == 4096
        assert device.given_size >= 4096
        assert all(read[at : at + 8] in source.given for at in range(0, len(read), 8))


async def test_guests_that_are_killed_one_after_the_other_leave_the_device_as_new(uml, tmp_path):
    balloon = quiet_balloon(*RING_FEATURES)
    command = uml(f"{tmp_path}/s:5")
    async with serving(balloon.device, tmp_path / "s") as back_end:
        descriptor_count = open_descriptor_count()
        for round_number in range(3):
            async with guest.boot(command) as running:
                await balloon.inflate(16 * MIB)
                hints = await balloon.hints()
                assert sizes(hints) > 128 * MIB
                assert back_end.statistics.is_connected
                assert await running.run("echo still here") == "still here\n"
            # It was killed with a balloon, and with hints that nobody was done with.
            await until(lambda: not back_end.statistics.is_connected, "the back end sees that the guest is gone")
            assert back_end.statistics.front_end_count == round_number + 1
            assert balloon.device.status == 0
            assert balloon.device.actual == 0
            assert open_descriptor_count() == descriptor_count
            balloon.device.set_target(0)


def open_descriptor_count():
    return len(os.listdir("/proc/self/fd"))
