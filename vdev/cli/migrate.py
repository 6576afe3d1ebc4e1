"""`vdev migrate`: start a guest, move it while it works, and say what came of it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from vdev.cli import parameters
from vdev.cli.parameters import check_inflate_size, check_ram_size, memory_size
from vdev.cli.running import json_option, run_and_show, trace_option
from vdev.errors import UserError
from vdev.events import EventStream
from vdev.run.options import ANSWERS, EXIT_STRATEGIES, HOLDS, STRATEGIES, MigrateOptions
from vdev.run.report import Progress, Report

__all__ = ["migrate"]


_EXIT_STATUS = """\b
Exit status:
    0  moved, and the guest found nothing lost
    1  moved, and the guest found wrong pages
    2  the arguments make no sense, or nothing could be started
    3  the destination or the link was lost; the guest goes on at the source
    4  the guest died
    5  the destination has everything, but its last word did not arrive
    6  the source could not follow the guest's writes; the guest goes on there
    6  the migration could not go on for another reason; the guest goes on at the source
  130  interrupted
"""


@click.command(short_help="Move a guest while it works.", epilog=_EXIT_STATUS)
@click.option("--ram", "ram_size", type=parameters.size, default="1GiB", show_default=True, help="Guest RAM.")
@click.option(
    "--workload",
    type=click.Choice(["idle", "churn", "files"]),
    default="churn",
    show_default=True,
    help="What the guest does: nothing; allocate, write and free; read files into a page cache.",
)
@click.option(
    "--rate",
    type=parameters.rate,
    metavar="NUMBER",
    default="500",
    show_default=True,
    help="Operations of the guest per second.",
)
@click.option(
    "--files",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The directory that --workload files reads.",
)
@click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    metavar="NAME",
    default="command-id",
    show_default=True,
    help=f"How the guest's free pages are skipped: {', '.join(STRATEGIES)}. Some of them can lose pages.",
)
@click.option(
    "--answer",
    type=click.Choice(ANSWERS),
    help="How the guest says which pages are free: block by block, or in one bitmap of all RAM. [default: list]",
)
@click.option(
    "--guest-holds",
    type=click.Choice(HOLDS),
    help="How long the guest keeps pages that it hinted from being used. [default: until-queued]",
)
@click.option(
    "--dirty-log",
    type=click.Choice(["auto", "kernel", "cooperative"]),
    default="auto",
    show_default=True,
    help="Who notes the pages that the guest writes: the kernel (Linux 6.7 or newer), or the guest itself.",
)
@click.option(
    "--max-bandwidth",
    type=parameters.bandwidth,
    metavar="BANDWIDTH",
    help="Send no faster, e.g. 100MiB/s. [default: no limit]",
)
@click.option(
    "--downtime-limit",
    type=parameters.duration,
    metavar="TIME",
    default="300ms",
    show_default=True,
    help="Stop the guest when the rest can be sent in this time.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    metavar="NUMBER",
    default=0,
    show_default=True,
    help="What the workload does next; with --in-one-loop also who acts next.",
)
@click.option(
    "--in-one-loop", is_flag=True, help="No processes: one loop under a mock clock, the same run for the same seed."
)
@click.option("--to", "to", metavar="ADDRESS", help="Where `vdev receive` waits. [default: start the destination here]")
@click.option(
    "--inflate", "inflate_size", type=parameters.size, default="0", help="Put this much RAM into the balloon first."
)
@click.option("--free-page-reporting", is_flag=True, help="Let the guest report free pages before the migration, too.")
@click.option(
    "--transport",
    type=click.Choice(["mmio", "vhost-user"]),
    default="mmio",
    show_default=True,
    help="What carries the balloon to the guest: registers, or messages to a back end.",
)
@click.option(
    "--ring",
    type=click.Choice(["split", "packed"]),
    default="split",
    show_default=True,
    help="The format of the balloon's virtqueues.",
)
@click.option("--in-order", is_flag=True, help="Have the balloon use buffers in the order that they were offered in.")
@click.option("--no-ioeventfd", is_flag=True, help="Make every kick an exit that stops the vCPU.")
@json_option
@trace_option
@click.pass_context
def migrate(
    ctx: click.Context,
    *,
    ram_size: int,
    workload: str,
    rate: float,
    files: Path | None,
    strategy: str,
    answer: str | None,
    guest_holds: str | None,
    dirty_log: str,
    max_bandwidth: float | None,
    downtime_limit: float,
    seed: int,
    in_one_loop: bool,
    to: str | None,
    inflate_size: int,
    free_page_reporting: bool,
    transport: str,
    ring: str,
    in_order: bool,
    no_ioeventfd: bool,
    json_path: Path | None,
    trace_path: Path | None,
) -> int:
    """Start a guest, move it live into a new process, and let it check itself there."""
    check_ram_size(ram_size, 2 if to is None else 1, memory_size())
    _check_workload(workload, files)
    _check_place(in_one_loop, to, dirty_log)
    _check_transport(transport, in_one_loop, no_ioeventfd)
    _check_strategy(strategy, answer, guest_holds, transport=transport, in_order=in_order)
    check_inflate_size(inflate_size, ram_size)
    options = MigrateOptions(
        ram_size=ram_size,
        workload=workload,
        files=files,
        rate=rate,
        strategy=strategy,
        answer=answer or "list",
        guest_holds=guest_holds or "until-queued",
        dirty_log=dirty_log,
        max_bandwidth=max_bandwidth,
        downtime_limit=downtime_limit,
        seed=seed,
        to=to,
        inflate_size=inflate_size,
        free_page_reporting=free_page_reporting,
        ioeventfd=not no_ioeventfd,
        transport=transport,
        ring=ring,
        in_order=in_order,
    )
    run = partial(_run_in_one_loop if in_one_loop else _run_processes, options)
    return run_and_show(ctx.command_path, run, json_path=json_path, trace_path=trace_path)


def _check_workload(workload: str, files: Path | None) -> None:
    if workload == "files" and files is None:
        raise UserError("--workload files needs a directory to read; add --files DIR")
    if workload != "files" and files is not None:
        raise UserError(f"--files is read by --workload files only, not by {workload}; add --workload files")


def _check_place(in_one_loop: bool, to: str | None, dirty_log: str) -> None:
    if in_one_loop and to is not None:
        raise UserError("--in-one-loop has its destination in the loop; leave out --to or --in-one-loop")
    if in_one_loop and dirty_log == "kernel":
        raise UserError("the kernel's dirty log needs processes; leave out --in-one-loop or --dirty-log kernel")
    if to is not None:
        from vdev.run.address import parse_address

        parse_address(to)


def _check_transport(transport: str, in_one_loop: bool, no_ioeventfd: bool) -> None:
    if transport == "mmio":
        return
    if in_one_loop:
        raise UserError("--transport vhost-user needs processes; leave out --in-one-loop or --transport")
    if no_ioeventfd:
        raise UserError("over vhost-user every kick is an eventfd; leave out --no-ioeventfd or --transport")


def _check_strategy(
    strategy: str, answer: str | None, guest_holds: str | None, *, transport: str, in_order: bool
) -> None:
    if strategy == "none" and (answer or guest_holds):
        option = "--answer" if answer else "--guest-holds"
        raise UserError(f"--strategy none asks the guest nothing; leave out {option} or choose another strategy")
    if strategy in EXIT_STRATEGIES and transport == "vhost-user":
        raise UserError(f"--strategy {strategy} needs kicks that are exits; leave out --transport vhost-user")
    if answer == "bitmap" and in_order:
        raise UserError("a bitmap's request buffer is not used in order; leave out --in-order or --answer bitmap")


def _run_in_one_loop(options: MigrateOptions, events: EventStream, on_progress: Callable[[Progress], None]) -> Report:
    from vdev.run import one_loop

    return one_loop.migrate(options, events=events, on_progress=on_progress)


def _run_processes(options: MigrateOptions, events: EventStream, on_progress: Callable[[Progress], None]) -> Report:
    import trio

    from vdev.run import processes

    return trio.run(partial(processes.migrate, options, events=events, on_progress=on_progress))
