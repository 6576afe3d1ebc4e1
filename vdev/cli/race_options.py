"""The options of `vdev race`: a strategy, the dimensions, the bound."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import click

from vdev.race.combination import DIMENSIONS, Bound

__all__ = ["bound_options", "dimension_options"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

_DIMENSION_HELP = {
    "answer": "A buffer for each block of free pages, or one bitmap of all RAM.",
    "holds": "How long the guest keeps what it hinted to itself.",
    "dirty_log": "Whether a sync clears what it reads, or that waits until a page is sent.",
    "collects": "Whether the first pages are collected before the id is made available.",
    "start_buffer": "A buffer for each id, or one that a later id overwrites.",
    "vcpus": "With one, nothing is written while the driver or an exit is at work.",
    "effect": "What the host does with a hint: not send the page, or give it back to the system, too.",
    "advance": "When command-id moves its id on.",
}
_OPTION_NAMES = {"holds": "--guest-holds"}
_BOUND_HELP = {
    "pages": "Pages of guest data.",
    "writes": "Writes by the workload.",
    "hints": "Pages that the guest collects; whole answers, for a bitmap.",
    "syncs": "Merges of the dirty log by the migrator.",
    "cancels": "Times that the migration may be called off.",
}


def dimension_options(function: _Function) -> _Function:
    """Add an option for each dimension; what is not given is None."""
    for name, values in reversed(DIMENSIONS.items()):
        option = click.option(
            _OPTION_NAMES.get(name, f"--{name.replace('_', '-')}"),
            name,
            type=click.Choice(values),
            help=f"{_DIMENSION_HELP[name]} [default: {values[0]}]",
        )
        function = option(function)
    return function


def bound_options(function: _Function) -> _Function:
    """Add an option for each number of the bound; what is not given is None."""
    for field in reversed(fields(Bound)):
        option = click.option(
            f"--{field.name}",
            type=int,
            metavar="NUMBER",
            help=f"{_BOUND_HELP[field.name]} [default: {field.default}]",
        )
        function = option(function)
    return function
