"""Rings as real drivers filled them, byte for byte, kept as test data.

    python tests/peers/capture.py [NAME...]

boots the guests, has each use every queue, and writes ``tests/captures/NAME.json``. NAME is made of guest, ring format
and device; only those that begin with one of the arguments are made. A capture is a list of *moments* of
one device's queues: what the driver posted, before the device looked at it, and what the device gave back. A moment
holds the three areas of the ring, indirect tables, the content of small buffers for the device, and what our queue kept
outside of guest RAM, so that another queue can go on from there.
"""

import base64
import contextlib
import dataclasses
import json
import pathlib
import random
import sys
import tempfile
import zlib

import trio

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from peers import guest, image
from peers.back_end import FORMATS, CountedBytes, ServedBalloon, served_block, served_entropy, serving, until
from spec.block import CONFIG
from spec.device import Feature
from spec.packed_ring import EVENT_SIZE, PACKED_DESCRIPTOR, PackedFlag, ring_size
from spec.split_ring import DESCRIPTOR, DescriptorFlag, available_ring_size, descriptor_table_size, used_ring_size
from vdev.errors import GuestAddressError

DIRECTORY = pathlib.Path(__file__).resolve().parent.parent / "captures"

# Enough of each queue for its first laps; a buffer that is longer is no balloon's page list and no block header.
MOMENTS_OF_A_QUEUE = 6
BUFFER_LIMIT = 1024
TABLE_LIMIT = 4096


def areas_of(setup, features):
    """(address, size) of a queue's descriptor, driver and device area."""
    if features >> Feature.RING_PACKED & 1:
        sizes = (ring_size(setup.size), EVENT_SIZE, EVENT_SIZE)
    else:
        sizes = (descriptor_table_size(setup.size), available_ring_size(setup.size), used_ring_size(setup.size))
    return tuple(zip((setup.descriptor, setup.driver, setup.device), sizes, strict=True))


def buffers_in(table, features):
    """(address, size, is_table) of what the descriptors of ``table`` name for the device to read."""
    packed = features >> Feature.RING_PACKED & 1
    layout = PACKED_DESCRIPTOR if packed else DESCRIPTOR
    write, indirect = (
        (PackedFlag.WRITE, PackedFlag.INDIRECT) if packed else (DescriptorFlag.WRITE, DescriptorFlag.INDIRECT)
    )
    for offset in range(0, len(table), layout.sizeof()):
        descriptor = layout.parse(table[offset : offset + layout.sizeof()])
        if descriptor.len and not descriptor.flags & write:
            yield descriptor.addr, descriptor.len, bool(descriptor.flags & indirect)


class Recorder:
    """Records the moments of ``device``'s queues from now on."""

    def __init__(self, device, peer):
        self.device = device
        self.peer = peer
        self.features = 0
        self.queues = {}
        self.moments = []
        self._handle = device.handle_queue
        device.handle_queue = self._handle_and_record

    def _handle_and_record(self, number):
        # A look at a queue without anything in it is no moment.
        is_news = self.device.queues[number].has_available() and self._count(number) < MOMENTS_OF_A_QUEUE
        if is_news:
            self.record(number, "posted")
        self._handle(number)
        if is_news:
            self.record(number, "used")

    def _count(self, number):
        return sum(moment["queue"] == number for moment in self.moments)

    def record(self, number, when):
        """Take a moment of queue ``number``: ``when`` is posted or used."""
        setup, features, memory = self.device.queue_setups[number], self.device.features, self.device.memory
        # Noted now: a guest that is gone leaves a device that was reset.
        noted = dataclasses.asdict(setup)
        if features != self.features or self.queues.get(str(number), noted) != noted:
            # Another driver than before: a disk is used by the firmware first. The last one is to be kept.
            self.features, self.queues, self.moments = features, {}, []
        self.queues[str(number)] = noted
        # The driver area first: whatever it announces is in the descriptors by then.
        descriptor, driver, device = areas_of(setup, features)
        copies = {name: memory.read(*area) for name, area in (("driver", driver), ("device", device))}
        copies["descriptor"] = steady_read(memory, *descriptor)
        buffers = {}
        for address, size, is_table in buffers_in(copies["descriptor"], features) if when == "posted" else ():
            if size > (TABLE_LIMIT if is_table else BUFFER_LIMIT):
                continue
            # A descriptor that is used up may name anything; only what is in RAM can be meant.
            with contextlib.suppress(GuestAddressError):
                buffers[address] = memory.read(address, size)
                for inner, inner_size, _ in buffers_in(buffers[address], features) if is_table else ():
                    if inner_size <= BUFFER_LIMIT:
                        buffers[inner] = memory.read(inner, inner_size)
        state = self.device.queues[number].save()
        self.moments.append(
            {
                "queue": number,
                "when": when,
                "next_avail": state.next_avail,
                "next_used": state.next_used,
                "outstanding": list(state.outstanding),
                "descriptor_counts": list(state.descriptor_counts),
                **{name: packed(copies[name]) for name in ("descriptor", "driver", "device")},
                "buffers": {str(address): packed(content) for address, content in sorted(buffers.items())},
            }
        )

    def save(self, name):
        """Write the capture; its queues are those that have moments."""
        DIRECTORY.mkdir(exist_ok=True)
        capture = {
            "peer": self.peer,
            "device": self.device.name,
            "features": self.features,
            "queues": self.queues,
            "moments": self.moments,
        }
        path = DIRECTORY / f"{name}.json"
        path.write_text(json.dumps(capture, indent=1) + "\n")
        return path


def steady_read(memory, address, size):
    """The bytes of a range that did not change while they were read; a driver may be at work on it."""
    before = memory.read(address, size)
    for _ in range(1000):
        again = memory.read(address, size)
        if again == before:
            break
        before = again
    return before


def packed(content):
    return base64.b64encode(zlib.compress(content, 9)).decode()


def unpacked(text):
    return zlib.decompress(base64.b64decode(text))


def load(path):
    """A capture with its bytes as bytes, queue numbers and addresses as numbers."""
    capture = json.loads(path.read_text())
    capture["queues"] = {int(number): setup for number, setup in capture["queues"].items()}
    for moment in capture["moments"]:
        for name in ("descriptor", "driver", "device"):
            moment[name] = unpacked(moment[name])
        moment["buffers"] = {int(address): unpacked(content) for address, content in moment["buffers"].items()}
    return capture


GUESTS = {
    "Linux 6.12, QEMU": (image.LINUX_6_12, ("split", "split, suppression", "packed", "packed, suppression")),
    "Linux 7.3, QEMU": (image.LINUX_7_3, ("split in order", "packed in order")),
    "Linux 6.1, user mode": (image.UML_WITH_ENTROPY, ("split, suppression", "packed, suppression")),
}
DEVICES = ("balloon", "block", "entropy")
MIB = 1 << 20
QUEUE_SIZE = 64


async def capture(name, kernel, ring_features, directory):
    """Boot one guest with all three devices, and have it use them."""
    content = random.Random(3).randbytes(4 * MIB)
    (directory / "disk").write_bytes(content)
    balloon = ServedBalloon(*ring_features)
    devices = [
        balloon.device,
        served_block(directory / "disk", *ring_features),
        served_entropy(CountedBytes(), *ring_features),
    ]
    sockets = [directory / which for which in DEVICES]
    if kernel is image.UML_WITH_ENTROPY:
        numbered = [f"{path}:{int(device.device_id)}" for path, device in zip(sockets, devices, strict=True)]
        command = guest.user_mode_linux(*numbered, kernel=kernel)
    else:
        options = guest.generic_devices(
            (sockets[0], devices[0], 16, QUEUE_SIZE),
            (sockets[1], devices[1], CONFIG.sizeof(), devices[1].queue_sizes[0]),
            (sockets[2], devices[2], 0, QUEUE_SIZE),
        )
        command = guest.qemu(kernel, *options, memory_mib=512)
    recorders = [Recorder(device, name) for device in devices]
    async with contextlib.AsyncExitStack() as stack:
        for device, path in zip(devices, sockets, strict=True):
            await stack.enter_async_context(serving(device, path))
        running = await stack.enter_async_context(guest.boot(command))
        for recorder in recorders:
            recorder.peer = f"{name} ({running.kernel})"
        await balloon.statistics()
        await balloon.statistics()
        await balloon.hints()
        balloon.device.hinting.done()
        await balloon.inflate(8 * MIB)
        await balloon.inflate(0)
        await until(lambda: balloon.device.reporting.reported_count, "the guest reports free pages")
        await running.run("dd if=/dev/vda of=/dev/vda bs=256k skip=8 count=2 conv=notrunc,fsync")
        await running.run("echo virtio_rng.0 > /sys/class/misc/hw_random/rng_current; head -c 256 /dev/hwrng | wc -c")
    devices[1].close()
    return recorders


def main(prefixes):
    for peer, (kernel, formats) in GUESTS.items():
        for ring_format in formats:
            names = [
                f"{peer}, {ring_format}, {device}".lower().replace(",", "").replace(" ", "-") for device in DEVICES
            ]
            if prefixes and not any(name.startswith(tuple(prefixes)) for name in names):
                continue
            with tempfile.TemporaryDirectory() as directory:
                recorders = trio.run(capture, peer, kernel, FORMATS[ring_format], pathlib.Path(directory))
            for name, recorder in zip(names, recorders, strict=True):
                path = recorder.save(name)
                print(f"{path.stat().st_size:8} bytes  {path.name}")


if __name__ == "__main__":
    main(sys.argv[1:])
