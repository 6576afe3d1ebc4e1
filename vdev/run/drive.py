"""`vdev drive`: be the driver of a device that somebody else serves over vhost-user."""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from guest_agent.vhost_user import BackEndLost, VhostUserTransport
from spec.device import DeviceId, Feature, feature_mask, feature_names
from spec.vhost_user import ProtocolFeature
from vdev.errors import UserError, VdevError
from vdev.events import SILENT, Emitter
from vdev.memory import PAGE_SIZE, GuestMemory, MemfdBacking, Region

__all__ = [
    "RAM_ADDRESS",
    "DriveFailed",
    "DriveOptions",
    "Driven",
    "attach",
    "check_ring",
    "describe",
    "failure",
    "ring_features",
]

RAM_ADDRESS = 1 << 30
"""Where RAM lies for the device. Not at 0, so that a back end which takes an offset for an address is found out."""

_UNIX_PATH_LIMIT = 107


class DriveFailed(VdevError):
    """The device, or its back end, did not do what was asked; the message says what. Nothing is wrong here."""


@dataclass(frozen=True)
class DriveOptions:
    """Which device, and how it is driven: the ring's format, descriptors in a queue, seconds to wait for an answer."""

    socket_path: str
    ring: str = "split"
    queue_size: int = 128
    timeout: float = 30.0


@dataclass(frozen=True)
class Driven:
    """A back end that is there, and RAM that it can be given; no driver yet."""

    transport: VhostUserTransport
    memory: GuestMemory


@contextmanager
def attach(options: DriveOptions, device_id: DeviceId, ram_size: int, events: Emitter = SILENT) -> Iterator[Driven]:
    """Connect and agree on the protocol; everything is closed behind.

    Raises UserError if there is no back end at that socket. Inside, a back end that is lost raises DriveFailed.
    """
    connection = _connect(options.socket_path, options.timeout)
    memory = GuestMemory([Region(RAM_ADDRESS, MemfdBacking(-(-ram_size // PAGE_SIZE) * PAGE_SIZE))])
    try:
        try:
            transport = VhostUserTransport(
                memory,
                connection,
                device_id=device_id,
                patience=options.timeout,
                name=options.socket_path,
                events=events,
            )
        except BackEndLost as lost:
            raise UserError(f"what listens at {options.socket_path} is no vhost-user back end: {lost.cause}") from lost
        try:
            yield Driven(transport, memory)
        except BackEndLost as lost:
            raise DriveFailed(str(lost)) from lost
        finally:
            transport.close()
    finally:
        for region in memory.regions:
            assert isinstance(region.backing, MemfdBacking)
            region.backing.close()


def _connect(path: str, patience: float) -> socket.socket:
    if len(os.fsencode(path)) > _UNIX_PATH_LIMIT:
        raise UserError(f"the socket path is longer than {_UNIX_PATH_LIMIT} bytes: {path}")
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # With a timeout of Python's the kernel does not wait at all for a place in a full queue of connections.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(patience))
        connection.connect(path)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(0))
    except BlockingIOError:
        connection.close()
        raise UserError(f"cannot reach a back end at {path}: nobody accepted within {patience:g} s") from None
    except OSError as error:
        connection.close()
        why = _REFUSALS.get(error.errno or 0, error.strerror or str(error))
        raise UserError(f"cannot reach a back end at {path}: {why}") from error
    return connection


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))


_REFUSALS = {
    errno.ENOENT: "there is no such socket; start one, like vdev serve entropy --socket PATH",
    errno.ECONNREFUSED: "nobody listens there",
    errno.EPROTOTYPE: "it is no stream socket",
}


def ring_features(ring: str) -> int:
    """Return the mask of features that are not a device type's own and may be used with rings of this format."""
    mask = (1 << 64) - 1
    return mask if ring == "packed" else mask & ~feature_mask(Feature.RING_PACKED)


def check_ring(options: DriveOptions, features: int) -> None:
    """Raise UserError if packed rings were asked for and not had."""
    if options.ring == "packed" and not features >> Feature.RING_PACKED & 1:
        raise UserError(f"the device at {options.socket_path} has no packed rings; leave out --ring packed")


def failure(transport: VhostUserTransport, reason: str) -> DriveFailed:
    """Return the error for a device that its driver gave up for `reason`; a back end that is lost is the better one."""
    return DriveFailed(reason if transport.lost is None else str(transport.lost))


def describe(
    options: DriveOptions, driven: Driven, features: int, type_features: type[IntEnum] | None = None
) -> dict[str, Any]:
    """Return what was agreed on, for the report."""
    has = driven.transport.protocol_features
    return {
        "socket": options.socket_path,
        "ring": "packed" if features >> Feature.RING_PACKED & 1 else "split",
        "features": feature_names(features, type_features or ()),
        "protocol_features": [feature.name for feature in ProtocolFeature if has >> feature & 1],
    }
