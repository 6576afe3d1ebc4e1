"""How faults are put into our own devices and their registers."""

from check_mutants import Mutant, replaced

from vdev.mmio import MmioRegisters

SUBJECTS = (
    "features.*",
    "config.*",
    "status.*",
    "reset.*",
    "mmio.*",
    "queue-reset.*",
    "suspend.*",
    "used.*",
)
"""Of checks that a session's faults are judged by."""


def mutant(name, kind, kills, **options):
    """Judged by the checks of all subjects here."""
    return Mutant(name, kind, kills, **{"only": SUBJECTS, **options})


def put_instead(owner, name, value):
    """A ``patch``: an attribute is another one."""
    return replaced(lambda patch: patch.setattr(owner, name, value))


def reads(register, change):
    """A ``patch``: a register reads as ``change(registers, value)``."""
    read = MmioRegisters.read

    def changed(self, offset, size):
        value = read(self, offset, size)
        return change(self, value) if offset == register else value

    return put_instead(MmioRegisters, "read", changed)


def raise_error(*_):
    raise KeyError("a register")
