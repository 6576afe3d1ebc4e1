"""Messages between a vCPU process and its host: this project's own, one per SOCK_SEQPACKET datagram.

The process says UP and waits for its hardware: one datagram of JSON whose file descriptors travel beside it. From then
on the guest sends an exit and blocks for the host's reply. A body, where there is one, follows the fixed part.
"""

from enum import IntEnum

from construct import Int8ul, Int64ul, Padding, Struct

__all__ = ["EXIT", "GateWord", "MAX_FD_COUNT", "MAX_MESSAGE_SIZE", "REPLY", "ExitKind", "ReplyKind"]

MAX_FD_COUNT = 250
"""File descriptors that one datagram can carry (SCM_MAX_FD is 253)."""

MAX_MESSAGE_SIZE = 64 << 10
"""Bytes of the largest message, body included: a vCPU state is a few hundred."""


class ExitKind(IntEnum):
    """Why the vCPU left the guest."""

    READY = 1
    """The process is up and has RAM mapped. Body: JSON with `regions` (the address it mapped each at) and
    `write_protect_refused` (why the kernel's dirty log cannot be had, or null).
    """
    REGISTER_READ = 2
    REGISTER_WRITE = 3
    HALTED = 4
    """Between two operations, as asked, or booted or restored and not yet run. Body: the vCPU state."""
    VERDICT = 5
    """The guest has checked what it relies on. Body: JSON. No reply; HALTED follows."""
    FAULT = 6
    """The guest cannot go on. Body: one line of text. No reply."""
    UP = 7
    """The process has started. What it is answered with is its hardware."""


class ReplyKind(IntEnum):
    """What the host tells the vCPU."""

    VALUE = 1
    """A register access is done; `value` is what was read."""
    BOOT = 2
    """Body: JSON guest configuration."""
    RESTORE = 3
    """Body: vCPU state."""
    RUN = 4
    VERIFY = 5
    END = 6


class GateWord(IntEnum):
    """What is said at a gate, one byte a datagram: a vCPU that takes part in a schedule asks before each act."""

    ASK = 1
    """The vCPU is at its next act."""
    GO = 2
    """From the host: it may make it."""
    MADE = 3
    """The act is over."""
    FAULT = 4
    """The act is not possible. One line of text follows the byte."""


EXIT = "exit" / Struct("kind" / Int8ul, "size" / Int8ul, Padding(6), "address" / Int64ul, "value" / Int64ul)
REPLY = "reply" / Struct("kind" / Int8ul, Padding(7), "value" / Int64ul)
