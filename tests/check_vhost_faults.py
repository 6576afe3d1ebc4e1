"""How faults are put into our own vhost-user back end."""

import contextlib
import os

from check_mutants import Mutant, replaced

from spec.vhost_user import U64, FrontEndRequest
from vdev.check.registry import RingFormat
from vdev.devices.kind import Carrier
from vdev.vhost_user.phases import RULES, Refusal, Rule

R = FrontEndRequest

SPLIT = (RingFormat.SPLIT,)
"""Of faults that have nothing to do with the format, and make a check wait."""


def mutant(name, kills, patch=None, *, kind="entropy", only=(), **options):
    """Judged by the checks of the subjects that it fails, of how messages are answered, and of how a ring is used."""
    subjects = {f"{check.partition('.')[0]}.*" for check in kills}
    only = only or (*sorted(subjects | {"messages.*", "used.*"}),)
    return Mutant(name, kind, kills, patch=patch, carrier=Carrier.VHOST_USER, only=only, **options)


def put_instead(owner, name, value):
    """A ``patch``: an attribute is another one."""
    return replaced(lambda patch: patch.setattr(owner, name, value))


def wrapped(owner, name, wrap):
    """A ``patch``: a method is ``wrap(method)``."""
    return put_instead(owner, name, wrap(owner.__dict__[name]))


def refused(request, refusal=Refusal.ACKNOWLEDGED):
    """A ``patch``: a request is never legal."""
    return replaced(lambda patch: patch.setitem(RULES, request, Rule(frozenset(), refusal)))


def u64(value):
    """The payload of a reply that is a number."""
    return U64.build({"value": value})


kept = []
"""File descriptors that a fault did not close."""


def keeping(patch):
    """A ``patch``: what it keeps is closed when the fault is gone."""

    @contextlib.contextmanager
    def patched():
        try:
            with patch():
                yield
        finally:
            while kept:
                os.close(kept.pop())

    return patched
