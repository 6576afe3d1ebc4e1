"""`vdev drive`: be the driver of a device that somebody else serves over vhost-user."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from vdev.cli import parameters
from vdev.cli.one_line import USAGE_STATUS, complain
from vdev.cli.parameters import check_ram_size, check_writable, memory_size
from vdev.cli.running import STDOUT, json_option
from vdev.cli.streams import silence
from vdev.errors import UserError

if TYPE_CHECKING:
    from vdev.run.drive import DriveOptions
    from vdev.run.drive_block import Range

__all__ = ["drive"]

_WRONG_DATA_STATUS = 1
_DEVICE_FAILED_STATUS = 3
_EXIT_STATUS = """\b
Exit status:
    0  done
    1  the device gave wrong data, or the guest found wrong pages
    2  the arguments make no sense, or there is no such device
    3  the device or its back end failed: an error, a broken protocol, no answer, gone
  130  interrupted
"""

_Function = TypeVar("_Function", bound=Callable[..., Any])


@click.group(short_help="Drive a device that a vhost-user back end serves.", epilog=_EXIT_STATUS, no_args_is_help=False)
def drive() -> None:
    """Be the driver of a device that a vhost-user back end serves: `vdev serve`, qemu-storage-daemon, or your own."""


def _common(function: _Function) -> _Function:
    options = (
        click.argument("socket_path", metavar="SOCKET", type=click.Path()),
        click.option(
            "--ring", type=click.Choice(["split", "packed"]), default="split", show_default=True, help="Ring format."
        ),
        click.option(
            "--queue-size",
            type=click.IntRange(4, 1024),
            default=128,
            show_default=True,
            help="Most descriptors in a queue; the largest power of two up to it is used.",
        ),
        click.option(
            "--timeout",
            type=parameters.duration,
            metavar="TIME",
            default="30s",
            show_default=True,
            help="How long to wait for an answer.",
        ),
        json_option,
    )
    for option in reversed(options):
        function = option(function)
    return function


def _drive_options(socket_path: str, ring: str, queue_size: int, timeout: float) -> "DriveOptions":
    from vdev.run.drive import DriveOptions

    return DriveOptions(socket_path, ring, 1 << (queue_size.bit_length() - 1), timeout)


# block


@drive.command(short_help="Read, write, and change a disk.", epilog=_EXIT_STATUS)
@_common
@click.option(
    "--read", "read", type=(parameters.size, parameters.size), metavar="OFFSET SIZE", help="Read this into --output."
)
@click.option(
    "--write",
    "write",
    type=(parameters.size, click.Path(exists=True, dir_okay=False, path_type=Path)),
    metavar="OFFSET FILE",
    help="Write what FILE holds.",
)
@click.option(
    "--write-zeroes", type=(parameters.size, parameters.size), metavar="OFFSET SIZE", help="Make this read as zeros."
)
@click.option(
    "--discard", type=(parameters.size, parameters.size), metavar="OFFSET SIZE", help="Tell that nobody needs this."
)
@click.option("--flush", is_flag=True, help="Have everything on stable storage.")
@click.option("--id", "get_id", is_flag=True, help="Ask for the disk's id.")
@click.option("--output", "output_path", type=click.Path(path_type=Path), metavar="FILE|-", help="Where data go.")
@click.option(
    "--exercise",
    "request_count",
    type=click.IntRange(min=1),
    metavar="NUMBER",
    help="Do so many random reads and writes, and check each against a copy in memory. What was there is lost.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), metavar="NUMBER", default=0, show_default=True, help="Of --exercise."
)
@click.option(
    "--depth",
    type=click.IntRange(1, 256),
    default=16,
    show_default=True,
    help="Requests of --exercise under way at a time.",
)
@click.option(
    "--queues", "queue_count", type=click.IntRange(1, 64), default=1, show_default=True, help="Queues for --exercise."
)
@click.option(
    "--span",
    type=parameters.size,
    metavar="SIZE",
    default="64MiB",
    show_default=True,
    help="How much of the disk, from its start on, --exercise uses.",
)
@click.pass_context
def block(
    ctx: click.Context,
    *,
    socket_path: str,
    ring: str,
    queue_size: int,
    timeout: float,
    json_path: Path | None,
    read: tuple[int, int] | None,
    write: tuple[int, Path] | None,
    write_zeroes: tuple[int, int] | None,
    discard: tuple[int, int] | None,
    flush: bool,
    get_id: bool,
    output_path: Path | None,
    request_count: int | None,
    seed: int,
    depth: int,
    queue_count: int,
    span: int,
) -> int:
    """Show what disk is served at SOCKET, and do with it what is asked for.

    In this order, whatever the options' order: --id, --write, --write-zeroes, --discard, --flush, --read. With
    --exercise, --output gets what the disk should hold afterwards.
    """
    options = _drive_options(socket_path, ring, queue_size, timeout)
    job_is_asked = any((read, write, write_zeroes, discard, flush, get_id))
    if request_count is not None and job_is_asked:
        raise UserError("--exercise works alone; leave out the other requests")
    if read is not None and output_path is None:
        raise UserError("--read needs a place for the data; add --output FILE, or --output - for stdout")
    if output_path is not None and read is None and request_count is None:
        raise UserError("--output gets what --read reads or --exercise leaves; add one of them")

    def run(output: IO[bytes] | None) -> dict[str, Any]:
        from vdev.run.drive_block import BlockJob, drive_block
        from vdev.run.drive_exercise import ExerciseOptions, exercise_block

        if request_count is not None:
            return exercise_block(options, ExerciseOptions(request_count, seed, depth, queue_count, span), output)
        job = BlockJob(get_id, write, _range(write_zeroes), _range(discard), flush, _range(read))
        return drive_block(options, job, output)

    return _run_and_show(ctx, run, json_path, output_path)


def _range(pair: tuple[int, int] | None) -> "Range | None":
    from vdev.run.drive_block import Range

    return None if pair is None else Range(*pair)


# entropy


@drive.command(short_help="Get random bytes.", epilog=_EXIT_STATUS)
@_common
@click.option(
    "--bytes", "size", type=parameters.size, metavar="SIZE", default="32", show_default=True, help="How many."
)
@click.option("--output", "output_path", type=click.Path(path_type=Path), metavar="FILE|-", help="Where they go.")
@click.pass_context
def entropy(
    ctx: click.Context,
    *,
    socket_path: str,
    ring: str,
    queue_size: int,
    timeout: float,
    json_path: Path | None,
    size: int,
    output_path: Path | None,
) -> int:
    """Get random bytes from the entropy device that is served at SOCKET."""
    if size < 1:
        raise UserError("--bytes 0 asks for nothing; give 1 or more")
    options = _drive_options(socket_path, ring, queue_size, timeout)

    def run(output: IO[bytes] | None) -> dict[str, Any]:
        from vdev.run.drive_entropy import drive_entropy

        return drive_entropy(options, size, output)

    return _run_and_show(ctx, run, json_path, output_path)


# balloon


@drive.command(short_help="Run a guest with a balloon.", epilog=_EXIT_STATUS)
@_common
@click.option(
    "--ram", "ram_size", type=parameters.size, metavar="SIZE", default="256MiB", show_default=True, help="Guest RAM."
)
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), help="How long it lives. [default: until interrupted]"
)
@click.option(
    "--numbering",
    type=click.Choice(["fixed", "compact"]),
    default="compact",
    show_default=True,
    help="How queues are numbered when some are missing: as the text says, or as Linux and QEMU do.",
)
@click.option(
    "--workload", type=click.Choice(["idle", "churn"]), default="churn", show_default=True, help="What it does."
)
@click.option(
    "--rate",
    type=parameters.rate,
    metavar="NUMBER",
    default="500",
    show_default=True,
    help="Operations of the workload per second.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), metavar="NUMBER", default=0, show_default=True, help="Of the workload."
)
@click.pass_context
def balloon(
    ctx: click.Context,
    *,
    socket_path: str,
    ring: str,
    queue_size: int,
    timeout: float,
    json_path: Path | None,
    ram_size: int,
    seconds: float | None,
    numbering: str,
    workload: str,
    rate: float,
    seed: int,
) -> int:
    """Run a guest in this process with the balloon that is served at SOCKET, and show what it does.

    It lives for --seconds, or until Ctrl-C, and then checks its memory.
    """
    check_ram_size(ram_size, 1, memory_size())
    options = _drive_options(socket_path, ring, queue_size, timeout)

    def run(_: IO[bytes] | None) -> dict[str, Any]:
        from spec.balloon import QueueNumbering
        from vdev.cli.drive_display import open_balloon_display, stopping
        from vdev.run.drive_balloon import BalloonOptions, drive_balloon

        balloon_options = BalloonOptions(ram_size, seconds, workload, rate, seed, QueueNumbering(numbering))
        with open_balloon_display() as display, stopping() as stop:
            return drive_balloon(options, balloon_options, display.show, stop)

    return _run_and_show(ctx, run, json_path, None)


# What all three do around it


def _run_and_show(
    ctx: click.Context,
    run: Callable[[IO[bytes] | None], dict[str, Any]],
    json_path: Path | None,
    output_path: Path | None,
) -> int:
    """Run, show the report, and return the exit status. Raises BadParameter or UserError before anything is started."""
    from vdev.cli.drive_report import show_report
    from vdev.run.drive import DriveFailed

    if json_path is not None and json_path == output_path:
        raise UserError("--json and --output name the same place; give two")
    for path, option in ((json_path, "--json"), (output_path, "--output")):
        if path is not None and path != STDOUT:
            check_writable(path, option)
    try:
        with _open_output(output_path) as output:
            report = run(output)
    except DriveFailed as failure:
        complain(ctx.command_path, str(failure))
        return _DEVICE_FAILED_STATUS
    except BrokenPipeError:
        silence(sys.stdout)
        return 0
    except OSError as error:
        complain(ctx.command_path, f"{error.filename or output_path}: {error.strerror or error}")
        return USAGE_STATUS
    status = _WRONG_DATA_STATUS if _is_wrong(report) else 0
    shown = show_report(ctx.command_path, report, json_path, table_on_stderr=STDOUT in (json_path, output_path))
    return status if shown else status or USAGE_STATUS


@contextmanager
def _open_output(path: Path | None) -> Iterator[IO[bytes] | None]:
    if path is None:
        yield None
    elif path == STDOUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    else:
        with path.open("wb") as file:
            yield file


def _is_wrong(report: dict[str, Any]) -> bool:
    exercise, verified = report.get("exercise", {}), report.get("verified", {})
    return bool(exercise.get("mismatched_sectors") or verified.get("mismatched"))
