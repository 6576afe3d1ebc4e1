"""Memory ordering between processes: the one file that knows what the processor may reorder.

A ring needs three things (virtio 1.4, "Supplying Buffers to The Device" and "Receiving Used Buffers From The Device"):
`store_fence` between the entries and the index that publishes them; `load_fence` between reading an index and reading
the entries it covers; `full_fence` between storing an index and looking whether the other side wants to be told.

x86-64 keeps stores in order and loads in order, so two of them cost nothing there; only a store followed by a load of
another address needs a fence. aarch64 needs a real one each time. CPython itself reorders nothing: each access is
a call into C.

The fence is two machine instructions in an executable page, called through ctypes without giving up the GIL: 86 ns
here, against 131 ns for a Lock acquired and released, which on aarch64 would not be a full fence. Where the system
refuses executable pages, x86-64 falls back to the Lock (its locked instruction is a full fence).
"""

import ctypes
import mmap
import os
import platform
import threading
from collections.abc import Callable

__all__ = ["code_page", "full_fence", "load_fence", "store_fence"]

_FENCE_CODE = {
    "x86_64": bytes.fromhex("0faef0c3"),  # mfence; ret
    # Not dmb ish: with ORDER_PLATFORM a device may be hardware, outside of the processors' own domain.
    "aarch64": bytes.fromhex("bf3f03d5c0035fd6"),  # dmb sy; ret
}


def code_page(code: bytes) -> tuple[mmap.mmap, int]:
    """Return an executable page with this machine code, and its address. Raises OSError where that is refused."""
    page = _executable_page(code)
    return page, _address_of(page)


def _executable_page(code: bytes) -> mmap.mmap:
    # Mapped from a file and never written through the mapping: the kernel makes the instruction cache coherent.
    fd = os.memfd_create("vdev-fence", os.MFD_CLOEXEC)
    try:
        os.write(fd, code.ljust(mmap.PAGESIZE, b"\0"))
        return mmap.mmap(fd, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC)
    finally:
        os.close(fd)


def _address_of(page: mmap.mmap) -> int:
    import numpy as np

    return int(np.frombuffer(page, np.uint8).ctypes.data)


def _lock_fence() -> Callable[[], None]:
    lock = threading.Lock()

    def fence() -> None:
        lock.acquire()
        lock.release()

    return fence


def _nothing() -> None:
    """This processor keeps that order by itself."""


def _make_full_fence(machine: str) -> tuple[Callable[[], None], object]:
    if machine not in _FENCE_CODE:
        raise ImportError(f"no memory fence is known for {machine!r}; vdev runs on {', '.join(_FENCE_CODE)}")
    try:
        page, address = code_page(_FENCE_CODE[machine])
    except OSError as error:
        if machine != "x86_64":
            raise ImportError(f"this system refuses an executable page for the memory fence: {error}") from error
        return _lock_fence(), None
    return ctypes.PYFUNCTYPE(None)(address), page


_machine = platform.machine()
full_fence, _page_kept_alive = _make_full_fence(_machine)
"""Order all earlier loads and stores before all later ones, as every processor and process sees them."""

store_fence: Callable[[], None] = _nothing if _machine == "x86_64" else full_fence
"""Order earlier stores before later stores."""

load_fence: Callable[[], None] = _nothing if _machine == "x86_64" else full_fence
"""Order earlier loads before later loads and stores."""
