"""The least that a target is asked: what it offers. A target that answers this is alive."""

import array
import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from spec.mmio import Register
from spec.vhost_user import PROTOCOL_FEATURES, U64, FrontEndRequest
from vdev.check.target import ConnectionClosed, Target
from vdev.check.verdict import TargetHung
from vdev.devices.kind import Carrier
from vdev.errors import BackEndViolation
from vdev.memory import GuestMemory
from vdev.vhost_user.framing import Message, MessageDecoder, encode

__all__ = ["RETRY_SECONDS", "Offer", "answers", "connect_within", "offer_of"]

_FEATURE_WORDS = 4
RETRY_SECONDS = 0.005
"""Between two attempts to reach somebody who may be about to come."""
_NOBODY_YET = (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN)
"""No socket, a socket at which nobody listens, a queue that is full: all may pass."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a target offers: masks of feature bits; `protocol_features` is None where there are none to negotiate."""

    features: int
    protocol_features: int | None = None

    def has(self, bit: int) -> bool:
        """Say whether feature `bit` is offered."""
        return bool(self.features >> bit & 1)


def offer_of(target: Target) -> Offer:
    """Ask the target what it offers, on a connection (or with registers) of its own.

    Raises TargetHung, TargetCrashed, TargetGone or ConnectionClosed where there is no answer, BackEndViolation for one
    that is none.
    """
    if target.carrier is Carrier.MMIO:
        return _registers_offer(target)
    with target.connect() as connection:
        return _ask_features(connection, target.patience)


def answers(connection: socket.socket, patience: float) -> bool:
    """Say whether there is any answer on a new connection, false if it is closed instead. Raises TargetHung."""
    try:
        _ask_features(connection, patience)
    except ConnectionClosed:
        return False
    except BackEndViolation:
        return True  # A wrong answer is a matter for a check; whoever gives one is alive.
    return True


def _registers_offer(target: Target) -> Offer:
    registers = target.plug_in(GuestMemory.absent())
    features = 0
    for word in range(_FEATURE_WORDS):
        registers.write(Register.DEVICE_FEATURES_SEL, 4, word)
        features |= registers.read(Register.DEVICE_FEATURES, 4) << 32 * word
    return Offer(features)


def _ask_features(connection: socket.socket, patience: float) -> Offer:
    features = _ask_mask(connection, FrontEndRequest.GET_FEATURES, patience)
    if not features >> PROTOCOL_FEATURES & 1:
        return Offer(features)
    return Offer(features, _ask_mask(connection, FrontEndRequest.GET_PROTOCOL_FEATURES, patience))


def _ask_mask(connection: socket.socket, request: FrontEndRequest, patience: float) -> int:
    deadline = time.monotonic() + patience
    connection.settimeout(patience)
    try:
        connection.sendall(encode(request))
        message = _receive(connection, deadline)
    except TimeoutError:
        raise TargetHung(f"no answer to {request.name} within {patience:g} s") from None
    except OSError as error:
        raise ConnectionClosed(f"the connection broke at {request.name}: {error.strerror or error}") from None
    if message is None:
        raise ConnectionClosed(f"the target closed the connection at {request.name}")
    if message.request != request or len(message.body) != U64.sizeof():
        raise BackEndViolation("Communication", f"answered with {message!r}", request=request.name)
    mask: int = U64.parse(message.body).value
    return mask


def _receive(connection: socket.socket, deadline: float) -> Message | None:
    """Return the next message, None at the connection's end. Raises TimeoutError at `deadline`."""
    decoder = MessageDecoder(BackEndViolation, FrontEndRequest)
    try:
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError  # A byte now and then is no answer.
            connection.settimeout(remaining)
            data, ancillary, _, _ = connection.recvmsg(decoder.wanted_size, 1024, socket.MSG_CMSG_CLOEXEC)
            for _, _, content in ancillary:
                fds = array.array("i")
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
                for fd in fds:
                    os.close(fd)
            if not data:
                return None
            for message in decoder.feed(data):
                return message
    finally:
        decoder.close()


def connect_within(path: str, seconds: float, *, go_on: Callable[[], bool] = lambda: True) -> socket.socket | None:
    """Connect to the socket at `path`, again and again as long as nobody accepts and `go_on()` is true.

    Returns None when it is not, or `seconds` are over. Raises OSError for what time does not change.
    """
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC))
            connection.setblocking(False)
            code = connection.connect_ex(path)
            if code == 0:
                stack.pop_all()
                connection.setblocking(True)
                return connection
        if code not in _NOBODY_YET:
            raise OSError(code, os.strerror(code), path)
        if time.monotonic() >= deadline or not go_on():
            return None
        time.sleep(RETRY_SECONDS)
