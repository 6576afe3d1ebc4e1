"""Standard streams whose reader has gone away."""

import os
from typing import IO

__all__ = ["silence"]


def silence(file: IO[str]) -> None:
    """Point `file` at nothing: what is still buffered in it must not make a later flush, or the exit, stumble."""
    try:
        descriptor = file.fileno()
    except OSError:
        return  # Not a file of the operating system's, so nobody flushes it at exit.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
