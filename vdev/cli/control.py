"""`vdev control`: ask something of a device that `vdev serve` serves."""

import json
from collections.abc import Callable, Iterator, Mapping
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


def _question(function: Callable[..., int]) -> Callable[..., int]:
    """Let a command be told `--json`, too: who has typed a line adds it at the end."""
    return click.option("--json", "json_here", is_flag=True, help="Answer in JSON.")(click.pass_obj(function))


@control.command(short_help="Tell who is connected, what was agreed, and what each queue did.")
@_question
def status(where: tuple[str, bool], *, json_here: bool) -> int:
    """Tell who is connected, what was agreed, and what went through each queue."""
    return _ask(where, json_here, {"do": "status"})


@control.command(short_help="Ask for a balloon of this size.")
@click.argument("size", type=parameters.size)
@click.option("--wait", is_flag=True, help="Return when the guest has done it.")
@_question
def inflate(where: tuple[str, bool], *, size: int, wait: bool, json_here: bool) -> int:
    """Ask the guest to make its balloon SIZE large, such as 256MiB; 0 gives all back."""
    return _ask(where, json_here, {"do": "inflate", "size": size, "wait": wait})


@control.command()
@_question
def statistics(where: tuple[str, bool], *, json_here: bool) -> int:
    """Ask the guest for its memory statistics."""
    return _ask(where, json_here, {"do": "statistics"})


@control.group(no_args_is_help=False, short_help="Ask which pages are free: request, stop, done.")
def hints() -> None:
    """Ask which of the guest's pages are free."""


@hints.command(short_help="Ask under a new id, and count them.")
@_question
def request(where: tuple[str, bool], *, json_here: bool) -> int:
    """Ask for hints under a new id, and count them; the guest holds those pages until `hints done`."""
    return _ask(where, json_here, {"do": "hints-request"})


@hints.command(short_help="Take no more; the guest holds what it gave.")
@_question
def stop(where: tuple[str, bool], *, json_here: bool) -> int:
    """Take no more hints; the guest goes on holding those pages."""
    return _ask(where, json_here, {"do": "hints-stop"})


@hints.command()
@_question
def done(where: tuple[str, bool], *, json_here: bool) -> int:
    """Let the guest have its pages back."""
    return _ask(where, json_here, {"do": "hints-done"})


def _ask(where: tuple[str, bool], json_here: bool, asked: Mapping[str, Any]) -> int:
    from vdev.run.control import ask

    control_path, json_above = where
    answer = ask(control_path, asked, patience=_PATIENCE)
    click.echo(json.dumps(answer, indent=2) if json_here or json_above else _in_words(answer))
    return 0


def _in_words(answer: Mapping[str, Any], indent: str = "") -> str:
    """Return a line for each field; a mapping in it gets its own lines below, and a list of mappings a table."""
    width = max((len(name) for name in answer), default=0)
    lines = []
    for name, value in answer.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{_spoken(name)}", _in_words(value, f"{indent}  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"{indent}{_spoken(name)}", *(f"{indent}  {line}" for line in _table(value))]
        else:
            lines.append(f"{indent}{_spoken(name):<{width}}  {_value(name, value)}")
    return "\n".join(lines)


def _table(rows: list[Mapping[str, Any]]) -> Iterator[str]:
    """Yield lines: what the columns are called, then each row; a column that says nothing in any row is left out."""
    names = [name for name in rows[0] if any(row[name] not in (None, "") for row in rows)]
    cells = [[_spoken(name) for name in names]]
    cells += [["" if row[name] is None else _value(name, row[name]) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _value(name: str, value: Any) -> str:
    from vdev.cli.sizes import format_count, format_size

    if isinstance(value, list | dict):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return format_size(value) if name.endswith(_BYTES) else format_count(value)
    if isinstance(value, float):
        return f"{value:.1f}"
    return "none" if value is None else str(value)
