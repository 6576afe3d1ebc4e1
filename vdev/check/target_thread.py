"""A device in this process that our own vhost-user back end serves, in a thread: messages, eventfds and all."""

import socket
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

import trio

from vdev.check.target import DEFAULT_PATIENCE, Ending, HostAction, MakeDevice
from vdev.check.target_probe import answers
from vdev.check.verdict import TargetCrashed, TargetHung
from vdev.device import Device
from vdev.devices.kind import Carrier
from vdev.memory import GuestMemory
from vdev.mmio import MmioRegisters
from vdev.vhost_user.server import BackEnd

__all__ = ["ThreadTarget"]

_T = TypeVar("_T")


class ThreadTarget:
    """One device that `make` makes, for all drivers, until it dies; then there is a new one.

    A thread that hangs cannot be ended: it is left behind, and ends with this process.
    """

    carrier = Carrier.VHOST_USER

    def __init__(self, make: MakeDevice, *, patience: float = DEFAULT_PATIENCE) -> None:
        self.patience = patience
        self._make = make
        self._service: _Service | None = None

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return "a thread of this process"

    @property
    def host(self) -> HostAction | None:
        """What has the device's host act, in the thread that serves it."""
        from vdev.check.balloon_host import host_of_device

        service = self._service
        act = None if service is None else host_of_device(service.device)
        if service is None or act is None:
            return None

        def do(action: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
            return service.call(lambda: act(action, arguments), self.patience, f"the host's {action}")

        return do

    def connect(self) -> socket.socket:
        """Return one end of a new socket pair whose other end is served when its turn comes.

        Raises TargetCrashed if the back end died since the last look.
        """
        if self._service is not None and not self._service.is_alive:
            service, self._service = self._service, None
            service.join(self.patience)
            raise TargetCrashed(f"the back end raised {service.problem}")
        if self._service is None:
            self._service = _Service(self._make(GuestMemory.absent()))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._service.take(theirs)
        return ours

    def plug_in(self, memory: GuestMemory) -> MmioRegisters:
        """Raise TypeError: there are no registers."""
        raise TypeError(f"a device that is served has no registers; {memory!r} is of no use to it")

    def settle(self) -> Ending | None:
        """Ask on a new connection. Raises TargetHung."""
        service = self._service
        if service is None:
            return None
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        service.take(theirs)
        with ours:
            if answers(ours, self.patience):
                return None
        service.join(self.patience)
        self._service = None
        return Ending(True, f"the back end raised {service.problem}")

    def restart(self) -> bool:
        """Leave the thread that hangs; the next driver has a new device."""
        if self._service is not None:
            self._service.cancel()
            self._service = None
        return True

    def close(self) -> None:
        """End the thread, and close the device."""
        if self._service is not None:
            self._service.cancel()
            self._service.join(self.patience)
            self._service = None


class _Service:
    """A thread with a loop that serves one socket after the other. Whatever ends it is kept in `problem`."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.problem = ""
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._is_closed = False
        self._token: trio.lowlevel.TrioToken | None = None
        self._arrival: trio.Event | None = None
        self._scope = trio.CancelScope()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"vdev-{device.name}", daemon=True)
        self._thread.start()
        self._started.wait()

    @property
    def is_alive(self) -> bool:
        """Whether it takes sockets."""
        return not self._is_closed

    def take(self, sock: socket.socket) -> None:
        """Serve `sock` when those before it are done; it is closed if nobody is going to."""
        with self._lock:
            if self._is_closed:
                sock.close()
                return
            self._sockets.append(sock)
        self._soon(self._announce)

    def call(self, function: Callable[[], _T], patience: float, what: str) -> _T:
        """Return what `function` returns in the loop. Raises TargetHung, or TargetCrashed if there is no loop."""
        result: Future[_T] = Future()

        def run() -> None:
            try:
                result.set_result(function())
            except BaseException as error:  # noqa: BLE001 - it is raised where it was asked for
                result.set_exception(error)

        if not self._soon(run):
            raise TargetCrashed(f"the back end is not there for {what}: {self.problem}")
        try:
            return result.result(patience)
        except TimeoutError:
            raise TargetHung(f"{what} did not return within {patience:g} s") from None

    def cancel(self) -> None:
        """Have it end."""
        self._soon(self._scope.cancel)

    def join(self, seconds: float) -> None:
        """Wait for its end, at most so long."""
        self._thread.join(seconds)

    def _soon(self, function: Callable[[], object]) -> bool:
        if self._token is None:
            return False
        try:
            self._token.run_sync_soon(function)
        except trio.RunFinishedError:
            return False
        return True

    def _announce(self) -> None:
        if self._arrival is not None:
            self._arrival.set()

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:  # noqa: BLE001 - whatever ends a judged device is what is judged
            self.problem = _leaf(error)
        finally:
            with self._lock:
                self._is_closed = True
            for sock in self._sockets:
                sock.close()
            self.device.close()
            self._started.set()

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._arrival = trio.Event()
        self._started.set()
        back_end = BackEnd(self.device)
        with self._scope:
            while True:
                await self._arrival.wait()
                self._arrival = trio.Event()
                while self._sockets:
                    await back_end.serve_connection(self._sockets.pop(0))


def _leaf(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
