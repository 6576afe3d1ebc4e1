"""The channel on which the back end asks the front end: SET_BACKEND_REQ_FD."""

import os
import socket
import stat
from collections.abc import Callable
from typing import Any

from spec.vhost_user import BackEndRequest
from vdev.errors import FrontEndViolation
from vdev.vhost_user.framing import Message, encode

__all__ = ["BackEndChannel"]

_CONFIG_CHANGE = encode(BackEndRequest.CONFIG_CHANGE_MSG)


class BackEndChannel:
    """A socket that the front end gave, none before. Nothing is asked that needs a reply, so nothing is read.

    `before_close` is told of its descriptor, which somebody may wait on.
    """

    def __init__(self, before_close: Callable[[int], None]) -> None:
        self._before_close = before_close
        self._socket: socket.socket | None = None

    @property
    def is_open(self) -> bool:
        """Whether the front end can be told anything."""
        return self._socket is not None

    def fileno(self) -> int:
        """Return the socket's file descriptor, -1 if there is none."""
        return self._socket.fileno() if self._socket is not None else -1

    def set(self, _: Any, message: Message) -> None:
        """SET_BACKEND_REQ_FD. Raises FrontEndViolation for something that is no socket."""
        if not stat.S_ISSOCK(os.fstat(message.fds[0]).st_mode):
            raise FrontEndViolation("Back-end communication", "the file descriptor is no socket")
        try:
            sock = socket.socket(fileno=message.fds[0])
        except OSError as error:  # its place in a file system, opened with O_PATH
            raise FrontEndViolation("Back-end communication", f"the socket cannot be used: {error}") from error
        message.take_fds()
        self.close()
        self._socket = sock

    def send_config_change(self) -> bool:
        """Tell that configuration space changed; false if there is no room for a message now.

        A front end that has closed its end, or reads so little that only a part fitted, is told nothing more.
        """
        assert self._socket is not None
        try:
            sent = self._socket.send(_CONFIG_CHANGE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            sent = 0
        if sent < len(_CONFIG_CHANGE):
            self.close()
        return True

    def close(self) -> None:
        """Close it; a second call does nothing."""
        if self._socket is not None:
            self._before_close(self._socket.fileno())
            self._socket.close()
            self._socket = None
