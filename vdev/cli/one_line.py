"""What goes wrong is said in one line on stderr, with an exit status; a traceback means a bug in vdev."""

import sys
from collections.abc import Iterator, Sequence

import click

from vdev.cli.streams import silence
from vdev.errors import VdevError

__all__ = ["INTERRUPTED_STATUS", "USAGE_STATUS", "complain", "find_interrupt", "find_refusal", "run_command"]

USAGE_STATUS = 2
INTERRUPTED_STATUS = 130


def complain(command: str, message: str) -> None:
    """Write `command: message` as one line on stderr; a stderr that is gone is no reason to fail."""
    try:
        click.echo(f"{command}: {' '.join(message.split())}", err=True)
    except OSError:
        silence(sys.stderr)


def find_interrupt(error: BaseException) -> KeyboardInterrupt | None:
    """Return the Ctrl-C in `error` or in the exception groups around it."""
    return next((leaf for leaf in _leaves(error) if isinstance(leaf, KeyboardInterrupt)), None)


def find_refusal(error: BaseException) -> VdevError | None:
    """Return the first error that we raised on purpose, if `error` is made of nothing else."""
    leaves = list(_leaves(error))
    refusals = [leaf for leaf in leaves if isinstance(leaf, VdevError)]
    return refusals[0] if refusals and len(refusals) == len(leaves) else None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


def run_command(command: click.Command, name: str, args: Sequence[str] | None = None) -> int:
    """Run a click command with `args` (None: those of this process) and return its exit status.

    Refusals are one line instead of click's usage block.
    """
    try:
        status: object = command.main(args, prog_name=name, standalone_mode=False)
    except click.BadParameter as error:
        complain(_command_path(error, name), error.format_message())
        return USAGE_STATUS
    except click.UsageError as error:
        path = _command_path(error, name)
        complain(path, f"{error.format_message().rstrip('.')} (try '{path} --help')")
        return USAGE_STATUS
    except click.ClickException as error:
        complain(name, error.format_message())
        return USAGE_STATUS
    except click.Abort:
        complain(name, "interrupted")
        return INTERRUPTED_STATUS
    except VdevError as error:
        complain(name, str(error))
        return USAGE_STATUS
    return status if isinstance(status, int) else 0


def _command_path(error: click.UsageError, name: str) -> str:
    return error.ctx.command_path if error.ctx else name
