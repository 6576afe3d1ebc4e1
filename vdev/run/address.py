"""Where a migration goes: a unix socket or TCP, as a person writes it.

>>> parse_address("unix:/run/guest.sock")
UnixAddress(path='/run/guest.sock')
>>> parse_address("tcp:127.0.0.1:4444")
TcpAddress(host='127.0.0.1', port=4444)
>>> parse_address("[::1]:4444")
TcpAddress(host='::1', port=4444)
"""

import errno
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from vdev.errors import UserError

__all__ = ["Address", "TcpAddress", "UnixAddress", "connect", "listen", "parse_address"]

_UNIX_PATH_LIMIT = 107


@dataclass(frozen=True)
class UnixAddress:
    """A unix stream socket in the file system."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True)
class TcpAddress:
    """A TCP host and port; port 0 listens on any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"tcp:[{self.host}]:{self.port}" if ":" in self.host else f"tcp:{self.host}:{self.port}"


Address = UnixAddress | TcpAddress


def parse_address(text: str) -> Address:
    """Return the address that `text` names: unix:PATH, a path with a slash, tcp:HOST:PORT or HOST:PORT.

    Raises UserError with one line that says how to write it.
    """
    if text.startswith("unix:") or "/" in text:
        path = text.removeprefix("unix:")
        if not path:
            raise UserError("the unix socket address has no path; write unix:/path/to/socket")
        if len(os.fsencode(path)) > _UNIX_PATH_LIMIT:
            raise UserError(f"the socket path is longer than {_UNIX_PATH_LIMIT} bytes: {path}")
        return UnixAddress(path)
    host, colon, port = text.removeprefix("tcp:").rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise UserError(f"{text!r} is no address; write unix:/path/to/socket or tcp:HOST:PORT")
    return TcpAddress(host.strip("[]"), int(port))


async def connect(address: Address) -> socket.socket:
    """Return a blocking stream socket connected to `address`. Raises OSError."""
    if isinstance(address, UnixAddress):
        stream: trio.SocketStream = await trio.open_unix_socket(address.path)
    else:
        stream = await trio.open_tcp_stream(address.host, address.port)
    return _detach(stream.socket)


def _detach(trio_socket: trio.socket.SocketType) -> socket.socket:
    plain = socket.socket(fileno=trio_socket.detach())
    plain.setblocking(True)
    if plain.family != socket.AF_UNIX:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return plain


class Listener:
    """A listening socket; `address` is where it really listens."""

    def __init__(self, address: Address, listening: trio.socket.SocketType) -> None:
        self.address = address
        self._socket = listening

    async def accept(self) -> socket.socket:
        """Return the next connection as a blocking socket."""
        connection, _ = await self._socket.accept()
        return _detach(connection)


@asynccontextmanager
async def listen(address: Address) -> AsyncIterator[Listener]:
    """Listen on `address`; a unix socket's file is removed at the end.

    Raises UserError when the address cannot be had.
    """
    with _new_socket(address) as listening:
        try:
            if isinstance(address, UnixAddress):
                _remove_stale(address.path)
                await listening.bind(address.path)
            else:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                await listening.bind((address.host, address.port))
                address = TcpAddress(address.host, listening.getsockname()[1])
            listening.listen()
        except OSError as error:
            raise UserError(f"cannot listen on {address}: {error.strerror or error}") from error
        try:
            yield Listener(address, listening)
        finally:
            if isinstance(address, UnixAddress):
                os.unlink(address.path)


def _new_socket(address: Address) -> trio.socket.SocketType:
    if isinstance(address, UnixAddress):
        return trio.socket.socket(socket.AF_UNIX)
    return trio.socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET)


def _remove_stale(path: str) -> None:
    """Remove a socket file that nobody listens on; leave anything else for bind to refuse."""
    if not (os.path.exists(path) and stat.S_ISSOCK(os.stat(path).st_mode)):
        return
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(path) == errno.ECONNREFUSED:
            os.unlink(path)
