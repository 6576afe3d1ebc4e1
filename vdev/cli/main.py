"""The entry point. Importing this is quick: a command imports what it runs when it runs."""

import sys

import click

from vdev import __version__
from vdev.cli.check import check
from vdev.cli.control import control
from vdev.cli.drive import drive
from vdev.cli.migrate import migrate
from vdev.cli.one_line import run_command
from vdev.cli.race import race
from vdev.cli.receive import receive
from vdev.cli.serve import serve

__all__ = ["main", "vdev"]


@click.group(
    name="vdev",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.pass_context
def vdev(ctx: click.Context) -> None:
    """Run both ends of virtio, and move a guest while it works.

    The guest's free pages are not sent: its balloon driver says which they are.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


vdev.add_command(check)
vdev.add_command(drive)
vdev.add_command(migrate)
vdev.add_command(receive)
vdev.add_command(race)
vdev.add_command(serve)
vdev.add_command(control)


def main() -> None:
    """Run the `vdev` command and exit with its status."""
    sys.exit(run_command(vdev, "vdev"))
