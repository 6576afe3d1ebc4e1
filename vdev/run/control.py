"""The control socket of a served device: what a person asks of it while a guest runs.

A request is one line of JSON, `{"do": NAME, ...}`, and so is its answer: `{"done": {...}}` or `{"refused": WHY}`. A
connection carries any number of them, one after the other.
"""

import errno
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import trio

from vdev.errors import UserError, VdevError

__all__ = ["ControlRefused", "Operation", "ask", "serve_control"]

Operation = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]
"""Takes the request, returns the answer's fields. Raises ControlRefused."""

_LINE_LIMIT = 64 << 10
_READ_SIZE = 4096


class ControlRefused(VdevError):
    """What was asked cannot be done now; the message is one line that says why."""


async def serve_control(listeners: list[trio.SocketListener], operations: Mapping[str, Operation]) -> None:
    """Answer requests that come in on `listeners` until cancelled; no request can end it."""
    await trio.serve_listeners(partial(_serve_connection, operations), listeners)


async def _serve_connection(operations: Mapping[str, Operation], stream: trio.SocketStream) -> None:
    rest = b""
    async with stream:
        try:
            while piece := await stream.receive_some(_READ_SIZE):
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    await stream.send_all(json.dumps(await _answer(operations, line)).encode() + b"\n")
                if len(rest) > _LINE_LIMIT:
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # Who asked has gone away; nobody needs the answer.


async def _answer(operations: Mapping[str, Operation], line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
        name = request["do"]
        operation = operations[name]
    except (ValueError, RecursionError, TypeError, KeyError):
        return {"refused": f"no such request; there are {', '.join(sorted(operations))}"}
    try:
        return {"done": await operation(request)}
    except ControlRefused as refusal:
        return {"refused": str(refusal)}


def ask(path: str, request: Mapping[str, Any], *, patience: float) -> dict[str, Any]:
    """Send one request to the control socket at `path`, and return the answer's fields; blocks.

    Raises UserError if nobody answers there within `patience` seconds, ControlRefused if the device cannot do it.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(patience)
            connection.connect(path)
            connection.sendall(json.dumps(dict(request)).encode() + b"\n")
            answer = json.loads(_read_line(connection))
    except TimeoutError:
        raise UserError(f"{path} did not answer within {patience:g} s") from None
    except OSError as error:
        hint = " (is `vdev serve` running?)" if error.errno in (errno.ENOENT, errno.ECONNREFUSED) else ""
        raise UserError(f"cannot ask at {path}: {error.strerror or error}{hint}") from error
    except ValueError:
        raise UserError(f"{path} is no control socket of vdev: its answer is not JSON") from None
    if not isinstance(answer, dict) or not ({"done", "refused"} & set(answer)):
        raise UserError(f"{path} is no control socket of vdev: its answer has no result")
    if "refused" in answer:
        raise ControlRefused(str(answer["refused"]))
    result: dict[str, Any] = answer["done"]
    return result


def _read_line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        piece = connection.recv(_READ_SIZE)
        if not piece:
            break
        line += piece
    return line
