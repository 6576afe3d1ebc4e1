"""`vdev receive`: wait for a guest, take it over, and let it check itself."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from vdev.cli.running import json_option, run_and_show, trace_option
from vdev.events import EventStream
from vdev.run.report import Progress, Report

__all__ = ["receive"]


@click.command(short_help="Wait for a guest and take it over.")
@click.option(
    "--listen",
    "address",
    metavar="ADDRESS",
    required=True,
    help="Where to wait: unix:PATH (or a path with a slash), tcp:HOST:PORT (or HOST:PORT).",
)
@click.option("--exit-when-verified", is_flag=True, help="End once the guest has checked itself. [default: run it on]")
@json_option
@trace_option
@click.pass_context
def receive(
    ctx: click.Context, *, address: str, exit_when_verified: bool, json_path: Path | None, trace_path: Path | None
) -> int:
    """Wait for one `vdev migrate --to ADDRESS`, take its guest over and run it."""
    from vdev.run.address import parse_address

    parse_address(address)
    run = partial(_run, address, exit_when_verified)
    return run_and_show(ctx.command_path, run, json_path=json_path, trace_path=trace_path)


def _run(
    address: str, exit_when_verified: bool, events: EventStream, on_progress: Callable[[Progress], None]
) -> Report:
    import trio

    from vdev.run.receive import receive

    return trio.run(
        partial(receive, address, events=events, on_progress=on_progress, exit_when_verified=exit_when_verified)
    )
