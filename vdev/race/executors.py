"""Where a sweep's questions are judged: processes of this machine, or a Dask cluster."""

import contextlib
import importlib
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing.synchronize import Event
from typing import Any

from vdev.errors import UserError

__all__ = ["Stopped", "check_stop", "open_executor"]

LOCAL = "local"
_DASK = "dask:"
_CONNECT_SECONDS = 10
_ADDRESS = re.compile(r"(tcp|tls|ws|wss)://[^/\s]+:[0-9]{1,5}")

_stop: Event | None = None


class Stopped(Exception):
    """The sweep was interrupted; what a worker was doing is of no use any more."""


def check_stop() -> None:
    """Raise Stopped in a worker process whose sweep is over."""
    if _stop is not None and _stop.is_set():
        raise Stopped


@contextlib.contextmanager
def open_executor(name: str, process_count: int | None = None) -> Iterator[Executor]:
    """Yield the executor that `name` means: "local", or "dask:ADDRESS".

    `process_count` is for local (None: one for each core). When the block ends early, what has not begun is cancelled,
    and local workers end at their next check_stop(). Raises UserError for a name that means nothing, or a cluster that
    is not there.
    """
    if name == LOCAL:
        with _local(process_count or len(os.sched_getaffinity(0))) as executor:
            yield executor
    elif name.startswith(_DASK) and name != _DASK:
        with _dask(name.removeprefix(_DASK)) as executor:
            yield executor
    else:
        raise UserError(f"nobody knows the executor {name!r}; write local, or dask:ADDRESS like dask:tcp://host:8786")


@contextlib.contextmanager
def _local(process_count: int) -> Iterator[Executor]:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    executor = _QuietPool(process_count, mp_context=context, initializer=_begin_worker, initargs=(stop,))
    try:
        yield executor
    finally:
        stop.set()
        executor.shutdown(cancel_futures=True)


class _QuietPool(ProcessPoolExecutor):
    """A pool whose workers never see Ctrl-C: a terminal sends it to all its processes, and the parent answers it."""

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        # Processes are started in here. The mask is inherited, so that there is no moment in which they could be hit.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(*args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(stop: Event) -> None:
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


@contextlib.contextmanager
def _dask(address: str) -> Iterator[Executor]:
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise UserError("--executor dask needs the package distributed; pip install 'vdev[dask]'") from error
    # A client that was given nonsense leaves threads behind, and says so on stderr at its end.
    if not _ADDRESS.fullmatch(address):
        raise UserError(f"{address!r} is no address of a Dask scheduler; write it like tcp://host:8786")
    try:
        client = distributed.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UserError(f"no Dask scheduler answers at {address}; start one, or give --executor local") from error
    with client:
        executor = client.get_executor(pure=False)
        try:
            yield executor
        except distributed.KilledWorker as error:
            raise UserError("the cluster lost a worker too often; go on with --resume") from error
        finally:
            executor.shutdown(wait=False)
