"""Faults put into the ring code by changing the text of one method, for the length of a test."""

import inspect
import sys
import textwrap

FENCE = "self._full_fence()"


def put(patch, owner, name, *changes):
    """Have method `name` of the class `owner` be its text with each (old, new) of `changes` done, once."""
    source = textwrap.dedent(inspect.getsource(getattr(owner, name)))
    for old, new in changes:
        assert source.count(old) == 1, f"{owner.__name__}.{name} has {source.count(old)} of {old!r}"
        source = source.replace(old, new)
    made = {}
    exec(compile(source, f"<mutant of {owner.__name__}.{name}>", "exec"), vars(sys.modules[owner.__module__]), made)
    patch.setattr(owner, name, made[name])


def moved(first, second):
    """Return the changes that put `first` behind `second`; both are lines with what they are indented by."""
    return (first, ""), (second, second + first)
