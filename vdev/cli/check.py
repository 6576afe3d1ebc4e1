"""`vdev check`: whether a device or a driver follows the text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from vdev.cli import parameters
from vdev.cli.running import json_option

__all__ = ["check"]

_DRIVER_TYPES = ("balloon", "block", "entropy")
_TYPES = ("block", "entropy", "balloon", "net", "fs", "generic")

_DEVICE_STATUS = """\b
Exit status:
    0  nothing that --fail-on names
    1  something that --fail-on names
    2  the arguments make no sense, or there is nobody to judge
    3  the target went away, or hangs, before all was done (and nothing above)
  130  interrupted
"""

_DRIVER_STATUS = """\b
Exit status:
    0  nothing that --fail-on names
    1  something that --fail-on names
    2  the arguments make no sense, or no driver came
  130  interrupted
"""

_MOST_PATIENCE = 86400.0
"""Seconds. The kernel's timeouts end somewhere too; nobody waits for a day."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


@click.group(
    short_help="Judge a device or a driver, statement by statement.",
    invoke_without_command=True,
    no_args_is_help=False,
)
@click.option("--list", "is_list", is_flag=True, help="Count statements, checks and mutants, and end.")
@click.pass_context
def check(ctx: click.Context, *, is_list: bool) -> int | None:
    """Judge a device or a driver: a verdict for each statement of the text, with the bytes that show it."""
    if ctx.invoked_subcommand is not None:
        if is_list:
            raise click.UsageError(f"--list stands behind {ctx.invoked_subcommand} to list what that does", ctx=ctx)
        return None
    if not is_list:
        click.echo(ctx.get_help())
        return 0
    from vdev.cli.check_list import show_numbers

    return show_numbers()


def _patience(text: str) -> float:
    """Return the seconds that `text` names, at most a day. Raises BadParameter."""
    seconds = parameters.duration(text)
    if seconds > _MOST_PATIENCE:
        raise click.BadParameter(f"{text!r} is more than a day, {_MOST_PATIENCE:g}s")
    return seconds


def _common(function: _Function) -> _Function:
    """Add what both commands have."""
    options = (
        click.option(
            "--only",
            multiple=True,
            metavar="PATTERN",
            help="Do just this: a check, a case such as check[split], or a statement; with * and ?. May be repeated.",
        ),
        click.option(
            "--skip", multiple=True, metavar="PATTERN", help="Leave this out, named as for --only. May be repeated."
        ),
        click.option(
            "--seed", type=click.IntRange(min=0), metavar="NUMBER", default=0, show_default=True, help="Of all luck."
        ),
        click.option(
            "--fail-on",
            metavar="LIST",
            default="fail:must,crashed,hung",
            show_default=True,
            help="What gives status 1: fail, crashed, hung, inconclusive, n/a, each for all levels or with :must,"
            " :should, :may behind it; or none.",
        ),
        json_option,
        click.option(
            "--junit", "junit_path", metavar="FILE", type=click.Path(path_type=Path), help="Write JUnit XML for a CI."
        ),
        click.option(
            "--html", "html_path", metavar="FILE", type=click.Path(path_type=Path), help="Write a page for a browser."
        ),
        click.option("--list", "is_list", is_flag=True, help="List the checks that would be done, and end."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@check.command(short_help="Judge a vhost-user back end; vdev is the driver.", epilog=_DEVICE_STATUS)
@click.argument("socket_path", metavar="[SOCKET]", required=False, type=click.Path())
@click.option("--type", "type_name", type=click.Choice(_TYPES), help="What device it is. Needed.")
@click.option(
    "--spawn",
    metavar="COMMAND",
    help="Start the target with this command, and again when it has died or hangs. {socket} stands for SOCKET; without"
    " SOCKET for one in a directory of its own. No shell reads it.",
)
@click.option(
    "--patience",
    type=_patience,
    metavar="TIME",
    default="5s",
    show_default=True,
    help="How long the target has for each answer.",
)
@click.option("--may-write", is_flag=True, help="Allow what overwrites the user's data, such as a disk's sectors.")
@_common
@click.pass_context
def device(ctx: click.Context, /, **values: Any) -> int:
    """Judge the device that a vhost-user back end serves at SOCKET.

    All that the target offers is tried, in both ring formats; then it is given what no driver may send, which it can
    refuse, but which must neither crash nor hang it, nor make it touch memory that it was not given.
    """
    from vdev.cli.check_device import check_device, list_device_checks

    if values.pop("is_list"):
        return list_device_checks(values["type_name"], values["only"], values["skip"])
    return check_device(ctx.command_path, **values)


@check.command(short_help="Judge a guest's driver; vdev is the device.", epilog=_DRIVER_STATUS)
@click.option("--type", "type_name", type=click.Choice(_DRIVER_TYPES), help="What device it drives. Needed.")
@click.option("--socket", "socket_path", metavar="PATH", help="Where its front end connects. Needed.")
@click.option(
    "--spawn",
    metavar="COMMAND",
    help="Start the guest with this command, anew for each start of the driver that is wanted. {socket} stands for"
    " PATH. No shell reads it. Without it only one start is judged.",
)
@click.option(
    "--again", is_flag=True, help="Without --spawn: somebody else sees to it that the guest comes again each time."
)
@click.option(
    "--file",
    "file_path",
    metavar="FILE",
    type=click.Path(exists=True),
    help="What a block device holds. [default: 64 MiB of its own]",
)
@click.option(
    "--patience",
    type=_patience,
    metavar="TIME",
    default="5s",
    show_default=True,
    help="How long the driver may be silent where it has something to do.",
)
@click.option(
    "--boot-patience",
    type=_patience,
    metavar="TIME",
    default="120s",
    show_default=True,
    help="How long the guest may take until it connects.",
)
@_common
@click.pass_context
def driver(ctx: click.Context, /, **values: Any) -> int:
    """Judge the driver of the guest whose vhost-user front end (QEMU, user-mode Linux) connects to PATH.

    All that it does, from probe to removal, is held against the rules, while the device plays games with it: buffers
    come back late and out of order, interrupts without reason, changes in storms. Have the guest use the device.
    """
    from vdev.cli.check_driver import check_driver, list_driver_checks

    if values.pop("is_list"):
        return list_driver_checks(values["type_name"], values["only"], values["skip"])
    return check_driver(ctx.command_path, **values)
