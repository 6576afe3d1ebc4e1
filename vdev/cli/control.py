"""`vdev control`: ask something of a device that `vdev serve` serves."""

import json
from collections.abc import Mapping
from typing import Any

import click

from vdev.cli import parameters

__all__ = ["control", "control_path_of"]

_PATIENCE = 60.0
_BYTES = ("_size", "_memory", "_caches")
"""How the names of fields end that are bytes."""


def control_path_of(socket_path: str) -> str:
    """Return where the control socket of a device is that is served at `socket_path`, unless told otherwise."""
    return f"{socket_path}.control"


@click.group(
    no_args_is_help=False,
    short_help="Ask something of a device that is served.",
    subcommand_metavar="COMMAND [ARGS]...",
)
@click.argument("socket_path", metavar="SOCKET")
@click.option("--control", "control_path", metavar="PATH", help="The control socket. [default: SOCKET.control]")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
@click.pass_context
def control(ctx: click.Context, *, socket_path: str, control_path: str | None, as_json: bool) -> None:
    """Ask something of the device that `vdev serve ... --socket SOCKET` serves, while a guest uses it."""
    ctx.obj = (control_path or control_path_of(socket_path), as_json)


@control.command()
@click.pass_obj
def status(where: tuple[str, bool]) -> int:
    """Tell who is connected, what was negotiated, and what went through each queue."""
    return _ask(where, {"do": "status"})


@control.command()
@click.argument("size", type=parameters.size)
@click.option("--wait", is_flag=True, help="Return when the guest has done it.")
@click.pass_obj
def inflate(where: tuple[str, bool], *, size: int, wait: bool) -> int:
    """Ask the guest to make its balloon SIZE large, such as 256MiB; 0 gives all back."""
    return _ask(where, {"do": "inflate", "size": size, "wait": wait})


@control.command()
@click.pass_obj
def statistics(where: tuple[str, bool]) -> int:
    """Ask the guest for its memory statistics."""
    return _ask(where, {"do": "statistics"})


@control.group(no_args_is_help=False)
def hints() -> None:
    """Ask which of the guest's pages are free."""


@hints.command()
@click.pass_obj
def request(where: tuple[str, bool]) -> int:
    """Ask for hints under a new id, and count them; the guest holds those pages until `hints done`."""
    return _ask(where, {"do": "hints-request"})


@hints.command()
@click.pass_obj
def stop(where: tuple[str, bool]) -> int:
    """Take no more hints; the guest goes on holding those pages."""
    return _ask(where, {"do": "hints-stop"})


@hints.command()
@click.pass_obj
def done(where: tuple[str, bool]) -> int:
    """Let the guest have its pages back."""
    return _ask(where, {"do": "hints-done"})


def _ask(where: tuple[str, bool], asked: Mapping[str, Any]) -> int:
    from vdev.run.control import ask

    control_path, as_json = where
    answer = ask(control_path, asked, patience=_PATIENCE)
    click.echo(json.dumps(answer, indent=2) if as_json else _in_words(answer), nl=True)
    return 0


def _in_words(answer: Mapping[str, Any], indent: str = "") -> str:
    """Return a line for each field, those of a field that is a mapping below it."""
    width = max((len(name) for name in answer), default=0)
    lines = []
    for name, value in answer.items():
        if isinstance(value, dict):
            lines += [f"{indent}{_spoken(name)}", _in_words(value, f"{indent}  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"{indent}{_spoken(name)}", *(f"{indent}  {_row(each)}" for each in value)]
        else:
            lines.append(f"{indent}{_spoken(name):<{width}}  {_value(name, value)}")
    return "\n".join(line for line in lines if line)


def _row(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{_spoken(name)} {_value(name, value)}" for name, value in fields.items() if value is not None)


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _value(name: str, value: Any) -> str:
    from vdev.cli.sizes import format_count, format_size

    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return format_size(value) if name.endswith(_BYTES) else format_count(value)
    if isinstance(value, float):
        return f"{value:.1f}"
    return "none" if value is None else str(value)
