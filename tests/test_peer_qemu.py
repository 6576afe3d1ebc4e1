"""Linux under QEMU drives our devices over vhost-user, on every format of ring, on two kernels and two QEMUs."""

import hashlib
import random

import pytest
from peers import guest, image, parts
from peers.back_end import FORMATS, CountedBytes, ServedBalloon, served_block, served_entropy, serving, until
from peers.have import have

from spec.balloon import BalloonFeature, StatisticTag
from spec.block import CONFIG
from spec.device import Feature

pytestmark = pytest.mark.process

MIB = 1 << 20
BLOCK_PAGES = 4 * MIB // 4096
QUEUE_SIZE = 64
SLACK = 16 * MIB


@pytest.fixture(autouse=True)
def _parts(request):
    """A test without its kernel or its QEMU is skipped, which has to happen before Trio runs it."""
    of_the_test = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    kernel = of_the_test.get("kernel", image.LINUX_6_12)
    have(lambda: (kernel.image, kernel.initramfs))
    have(qemu_7_2 if request.node.get_closest_marker("peer_qemu_7_2") else parts.generic_qemu_command)


def qemu_7_2():
    return parts.qemu_command(parts.BOOKWORM)


async def negotiated(running, number):
    """What the guest's driver says it negotiated for its virtio device ``number``."""
    bits = (await running.run(f"cat /sys/bus/virtio/devices/virtio{number}/features")).strip()
    return sum(1 << place for place, bit in enumerate(bits) if bit == "1")


GUESTS = [
    (kernel, name)
    for kernel in (image.LINUX_6_12, image.LINUX_7_3)
    for name in FORMATS
    if kernel is not image.LINUX_6_12 or "in order" not in name  # it knows no IN_ORDER, and declines it "as served"
]


@pytest.mark.peer_qemu
@pytest.mark.parametrize(("kernel", "name"), GUESTS, ids=[f"{kernel.name}-{name}" for kernel, name in GUESTS])
async def test_every_device_works_on_every_format_of_ring(kernel, name, tmp_path):
    wanted = FORMATS[name]
    balloon = ServedBalloon(*wanted)
    content = random.Random(7).randbytes(8 * MIB)
    (tmp_path / "disk").write_bytes(content)
    disk = served_block(tmp_path / "disk", *wanted)
    source = CountedBytes()
    entropy = served_entropy(source, *wanted)
    sockets = [tmp_path / which for which in ("balloon", "block", "entropy")]
    options = guest.generic_devices(
        (sockets[0], balloon.device, 16, QUEUE_SIZE),
        (sockets[1], disk, CONFIG.sizeof(), disk.queue_sizes[0]),  # as its seg_max has it
        (sockets[2], entropy, 0, QUEUE_SIZE),
    )
    command = guest.qemu(kernel, *options, memory_mib=512)
    async with (
        serving(balloon.device, sockets[0]),
        serving(disk, sockets[1]),
        serving(entropy, sockets[2]),
        guest.boot(command) as running,
    ):
        assert kernel.name.removeprefix("linux-") in running.kernel
        for number, device in enumerate((balloon.device, disk, entropy)):
            taken = set(wanted)
            if kernel is image.LINUX_6_12:
                taken.discard(Feature.IN_ORDER)  # it came to Linux later
            if device is balloon.device:
                taken.discard(Feature.INDIRECT_DESC)  # its driver of today declines it
            for feature in FORMATS["as served"]:
                assert device.has_feature(feature) == (feature in {*taken, Feature.VERSION_1}), (device.name, feature)
            assert device.features == await negotiated(running, number)
        await use_balloon(running, balloon)
        await use_disk(running, content)
        await use_entropy(running, source)
        assert disk.failed_count == 0
    disk.close()
    check_disk(tmp_path / "disk", content)


async def use_balloon(running, balloon):
    device = balloon.device

    async def free_is(*, about=None, least=0, slack=SLACK):
        memory = (await running.memory())["MemFree"]
        return memory >= least and (about is None or abs(memory - about) < slack)

    # While the guest reports free pages it holds up to 32 pieces of 4 MiB; so each figure is waited for.
    await until(lambda: device.reporting.reported_count * 4096 >= 100 * MIB, "the guest reports free pages")
    assert device.has_feature(BalloonFeature.PAGE_REPORTING)
    total = (await running.memory())["MemTotal"]
    await until(lambda: free_is(least=0.85 * total), "nearly all of an idle guest's memory is free")

    async def statistics_agree():
        statistics = await balloon.statistics()
        assert statistics[StatisticTag.TOTAL_MEMORY] == total
        return await free_is(about=statistics[StatisticTag.FREE_MEMORY])

    await until(statistics_agree, "the statistics are the guest's own figures")

    free = (await running.memory())["MemFree"]
    hints = await balloon.hints()
    hinted = sum(end - first for first, end in hints) * 4096
    assert 0.85 * free - 128 * MIB <= hinted <= total
    assert all(end - first == BLOCK_PAGES and first % BLOCK_PAGES == 0 for first, end in hints)
    assert len(set(hints)) == len(hints)
    # Closer than a block: one that was lost on the way would show.
    await until(
        lambda: free_is(about=free - hinted, slack=2 * MIB), "the guest has as much less free memory as it hinted"
    )
    device.hinting.done()
    await until(lambda: free_is(about=free), "the guest has its free memory back")
    assert device.hinting.refused_count == 0

    await balloon.inflate(64 * MIB)
    await until(lambda: free_is(about=free - 64 * MIB), "what is in the balloon is not free in the guest")
    await balloon.inflate(0)
    await until(lambda: free_is(about=free), "what was in the balloon is free again")


async def use_disk(running, content):
    assert hashlib.sha256(content).hexdigest() in await running.run("sha256sum /dev/vda")
    await running.run("dd if=/dev/vda of=/dev/vda bs=1M skip=4 count=2 conv=notrunc,fsync")


def check_disk(path, content):
    """What :func:`use_disk` wrote from inside is in the file, and nothing else has changed."""
    got = path.read_bytes()
    assert got[: 2 * MIB] == content[4 * MIB : 6 * MIB]
    assert got[2 * MIB :] == content[2 * MIB :]


async def use_entropy(running, source):
    assert "virtio_rng.0" in await running.run("cat /sys/class/misc/hw_random/rng_current")
    read = bytes.fromhex("".join((await running.run("head -c 1024 /dev/hwrng | od -An -v -tx1")).split()))
    assert len(read) == 1024
    assert all(read[at : at + 8] in source.given for at in range(0, len(read), 8))


@pytest.mark.peer_qemu_7_2
async def test_qemu_7_2_gives_its_guest_our_disk_and_our_entropy(tmp_path):
    content = random.Random(8).randbytes(8 * MIB)
    (tmp_path / "disk").write_bytes(content)
    ring_features = (Feature.EVENT_IDX, Feature.INDIRECT_DESC)
    disk = served_block(tmp_path / "disk", *ring_features, serial="vdev-7.2", queue_count=2)
    source = CountedBytes()
    entropy = served_entropy(source, *ring_features)
    sockets = [tmp_path / which for which in ("block", "entropy")]
    options = [
        *("-chardev", f"socket,id=block,path={sockets[0]}", "-device", "vhost-user-blk-pci,chardev=block,num-queues=2"),
        *("-chardev", f"socket,id=entropy,path={sockets[1]}", "-device", "vhost-user-rng-pci,chardev=entropy"),
    ]
    command = guest.qemu(image.LINUX_6_12, *options, command=qemu_7_2())
    async with serving(disk, sockets[0]), serving(entropy, sockets[1]), guest.boot(command) as running:
        assert disk.features == await negotiated(running, 0)
        assert entropy.features == await negotiated(running, 1)
        assert await running.run("cat /sys/block/vda/serial") == "vdev-7.2"
        assert await running.run("cat /sys/block/vda/size") == f"{len(content) // 512}\n"
        await use_disk(running, content)
        await use_entropy(running, source)
        assert disk.failed_count == 0
    disk.close()
    check_disk(tmp_path / "disk", content)


@pytest.mark.peer_qemu_7_2
async def test_a_read_only_disk_under_qemu_7_2_is_read_and_not_written(tmp_path):
    content = random.Random(9).randbytes(4 * MIB)
    (tmp_path / "disk").write_bytes(content)
    disk = served_block(tmp_path / "disk", Feature.EVENT_IDX, read_only=True)
    options = [
        *("-chardev", f"socket,id=block,path={tmp_path}/s", "-device", "vhost-user-blk-pci,chardev=block,num-queues=1")
    ]
    command = guest.qemu(image.LINUX_6_12, *options, command=qemu_7_2())
    async with serving(disk, tmp_path / "s"), guest.boot(command) as running:
        assert await running.run("cat /sys/block/vda/ro") == "1\n"
        assert hashlib.sha256(content).hexdigest() in await running.run("sha256sum /dev/vda")
        with pytest.raises(guest.GuestFailed, match="dd"):
            await running.run("dd if=/dev/zero of=/dev/vda bs=4k count=1 conv=notrunc,fsync")
    disk.close()
    assert (tmp_path / "disk").read_bytes() == content
