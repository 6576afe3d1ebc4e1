"""virtiofsd, a device of which this project knows nothing, driven by our front end and our rings: they are general.

What is said over the rings is FUSE, of which this file knows just enough to read one file.
"""

import random
import socket
import struct

import pytest
from construct import Bytes, Int32ul, Struct
from peers import parts
from peers.daemon import daemon
from peers.have import have

from guest_agent.vhost_user import VhostUserTransport
from guest_agent.virtqueue import driver_area_size, make_driver_queue
from spec.device import Feature, feature_mask
from spec.vhost_user import ProtocolFeature
from vdev.memory import GuestMemory, MemfdBacking, Region

pytestmark = [pytest.mark.peer_virtiofsd, pytest.mark.process]

FILE_SYSTEM_DEVICE = 26
CONFIG = Struct("tag" / Bytes(36), "num_request_queues" / Int32ul)

QUEUE_SIZE = 16
HIGH_PRIORITY, REQUESTS = 0, 1
PATIENCE = 30

# FUSE (Linux: include/uapi/linux/fuse.h): numbers of operations, and what precedes a request and an answer.
LOOKUP, OPEN, READ, INIT = 1, 14, 15, 26
REQUEST_HEADER = struct.Struct("<IIQQIIIHH")
ANSWER_HEADER = struct.Struct("<IiQ")
ROOT = 1


class FileSystem:
    """A driver of the least: one request at a time."""

    def __init__(self, path, features):
        self.memory = GuestMemory([Region(0x1_0000_0000, MemfdBacking(4 << 20))])
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(str(path))
        self.transport = VhostUserTransport(
            self.memory, connection, device_id=FILE_SYSTEM_DEVICE, patience=PATIENCE, name="virtiofsd"
        )
        self.transport.acknowledge_device()
        self.features = self.transport.negotiate(feature_mask(Feature.VERSION_1, *features), required=())
        self.base = self.memory.regions[0].guest_address
        area_size = driver_area_size(QUEUE_SIZE, 4)
        self.queues = []
        for number in (HIGH_PRIORITY, REQUESTS):
            address = self.base + number * area_size
            queue = make_driver_queue(self.memory, number, QUEUE_SIZE, address, self.features, indirect_capacity=4)
            self.transport.set_up_queue(number, queue.addresses)
            self.queues.append(queue)
        self.buffers = self.base + 2 * area_size
        self.transport.drive()
        self.request_count = 0

    def close(self):
        self.transport.close()
        for region in self.memory.regions:
            region.backing.close()

    def ask(self, operation, node, content, answer_size):
        """The content of the answer to one request; an error of FUSE raises OSError."""
        self.request_count += 1
        header_size = ANSWER_HEADER.size
        size = REQUEST_HEADER.size + len(content)
        request = REQUEST_HEADER.pack(size, operation, self.request_count, node, 0, 0, 0, 0, 0) + content
        self.memory.write(self.buffers, request)
        answer_address = self.buffers + (1 << 20)
        readable = [(self.buffers, REQUEST_HEADER.size), (self.buffers + REQUEST_HEADER.size, len(content))]
        writable = [(answer_address, header_size), (answer_address + header_size, answer_size)]
        queue = self.queues[REQUESTS]
        queue.add(readable, writable, self.request_count)
        self.transport.publish(queue)
        while (used := queue.collect()) is None:
            queue.enable_calls()
            assert self.transport.wait_interrupt(PATIENCE), "no answer"
            self.transport.take_interrupt()
        assert used.token == self.request_count
        answer = self.memory.read(answer_address, used.written_size)
        told_size, error, unique = ANSWER_HEADER.unpack(answer[:header_size])
        assert (told_size, unique) == (used.written_size, self.request_count)
        if error:
            raise OSError(-error, "FUSE")
        return answer[header_size:]


@pytest.mark.parametrize(
    "features", [(), (Feature.EVENT_IDX, Feature.INDIRECT_DESC)], ids=["plain", "event index, indirect"]
)
def test_a_file_that_virtiofsd_shares_is_read_through_our_rings(features, tmp_path):
    shared, path = tmp_path / "shared", tmp_path / "s"
    content = random.Random(4).randbytes(300_000)
    shared.mkdir()
    (shared / "hello").write_bytes(content)
    command = have(lambda: parts.TRIXIE.command("usr/libexec/virtiofsd"))
    command += [f"--socket-path={path}", f"--shared-dir={shared}", "--sandbox=none", "--seccomp=none", "--tag=vdev"]
    with daemon(command, path, tmp_path / "log"):
        file_system = FileSystem(path, features)
        try:
            assert file_system.features == feature_mask(Feature.VERSION_1, *features)
            assert file_system.transport.protocol_features >> ProtocolFeature.REPLY_ACK & 1
            started = file_system.ask(INIT, 0, struct.pack("<IIII", 7, 31, 65536, 0), 64)
            assert struct.unpack_from("<I", started) == (7,)
            node, *_ = struct.unpack_from("<Q", file_system.ask(LOOKUP, ROOT, b"hello\0", 128))
            handle, *_ = struct.unpack_from("<Q", file_system.ask(OPEN, node, struct.pack("<II", 0, 0), 16))
            got = b""
            while piece := file_system.ask(
                READ, node, struct.pack("<QQIIQII", handle, len(got), 32768, 0, 0, 0, 0), 32768
            ):
                got += piece
            assert got == content
            with pytest.raises(FileNotFoundError):
                file_system.ask(LOOKUP, ROOT, b"nothing\0", 128)
        finally:
            file_system.close()


def test_virtiofsd_tells_its_configuration_space(tmp_path):
    (tmp_path / "shared").mkdir()
    path = tmp_path / "s"
    command = have(lambda: parts.TRIXIE.command("usr/libexec/virtiofsd"))
    command += [f"--socket-path={path}", f"--shared-dir={tmp_path}/shared", "--sandbox=none", "--tag=a name"]
    with daemon(command, path, tmp_path / "log"):
        file_system = FileSystem(path, ())
        try:
            assert file_system.transport.protocol_features >> ProtocolFeature.CONFIG & 1
            assert file_system.transport.read_config(CONFIG)["num_request_queues"] == 1
        finally:
            file_system.close()
