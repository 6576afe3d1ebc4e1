"""OR into shared memory in one step, for bitmaps that another process clears meanwhile.

Python reads, ORs and writes in three steps, and a bit that the other side sets or clears between them is lost. A few
machine instructions in an executable page do it in one; see `vdev.memory.order`, which does the same for the fence.
"""

import ctypes
import platform
from collections.abc import Callable

from vdev.memory.order import code_page

__all__ = ["atomic_or"]

_CODE = {
    # lock or byte [rdi], sil; ret
    "x86_64": bytes.fromhex("f0400837c3"),
    # again: ldaxrb w2, [x0]; orr w2, w2, w1; stlxrb w3, w2, [x0]; cbnz w3, again; ret
    "aarch64": bytes.fromhex("02fc5f08 4200012a 02fc0308 a3ffff35 c0035fd6"),
}


def _make() -> tuple[Callable[[int, int], None] | None, object]:
    code = _CODE.get(platform.machine())
    if code is None:
        return None, None
    try:
        page, address = code_page(code)
    except OSError:
        return None, None
    return ctypes.PYFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)(address), page


atomic_or, _page_kept_alive = _make()
"""(address, mask): OR eight bits into the byte at an address of this process, and order it as a full fence does.

None where the system refuses executable pages: there is no other way.
"""
