"""`vdev serve`: be the device that a vhost-user front end (QEMU, user-mode Linux, `vdev drive`) gives to its guest."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from vdev.cli.control import control_path_of
from vdev.devices.kind import Carrier, DeviceKind, DeviceOption, OptionType
from vdev.devices.registry import DEVICES

if TYPE_CHECKING:
    from vdev.device import Device

__all__ = ["serve"]

_CLASS_SUMMARY = "a device class of your own"


class _DeviceCommands(click.Group):
    """A command for each device type, and one for FILE.py:CLASS or MODULE:CLASS, whatever it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the device types."""
        return list(DEVICES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of a device type, or of a class that is named with a colon."""
        if cmd_name in DEVICES:
            return _command(DEVICES[cmd_name])
        if ":" in cmd_name:
            return _class_command(cmd_name)
        return None


_HELP = """Serve a device to vhost-user front ends, one after the other, until interrupted.

DEVICE is one of the list below. FILE.py:CLASS, or MODULE:CLASS, is a subclass of vdev.device.Device of your own. A
guest under QEMU gets the device with a line like

\b
    -M q35,memory-backend=ram -object memory-backend-memfd,id=ram,size=512M,share=on
    -chardev socket,id=vdev,path=PATH -device vhost-user-rng-pci,chardev=vdev

While it runs, `vdev control PATH` asks things of it.
"""


@click.group(
    cls=_DeviceCommands,
    no_args_is_help=False,
    help=_HELP,
    short_help="Serve a device to vhost-user front ends.",
    subcommand_metavar="DEVICE|FILE.py:CLASS [OPTIONS]",
)
def serve() -> None:
    """Choose the device."""


def _command(kind: DeviceKind) -> click.Command:
    def run(**values: Any) -> int:
        return _serve(kind.make, values)

    params: list[click.Parameter] = [_click_option(option) for option in kind.options]
    # In the list of commands a line is short: what stands before a colon says enough.
    short = f"Serve {kind.summary.partition(':')[0]}."
    return _make_command(kind.name, f"Serve {kind.summary}.", short, params, run)


def _class_command(place: str) -> click.Command:
    def run(**values: Any) -> int:
        from vdev.run.device_class import load_device_class

        return _serve(load_device_class(place), values)

    summary = f"Serve {_CLASS_SUMMARY}: {place}."
    return _make_command(place, summary, summary, [], run)


def _make_command(
    name: str, summary: str, short: str, params: list[click.Parameter], run: Callable[..., int]
) -> click.Command:
    common: list[click.Parameter] = [
        click.Option(["--socket", "socket_path"], metavar="PATH", required=True, help="Where front ends connect."),
        click.Option(
            ["--control", "control_path"],
            metavar="PATH",
            help="The control socket. [default: --socket's, and .control]",
        ),
        click.Option(
            ["--without"],
            metavar="FEATURE",
            multiple=True,
            help="Do not offer this feature, by its name in the text, such as RING_PACKED. May be repeated.",
        ),
        click.Option(["--once"], is_flag=True, help="End when the first front end has gone."),
    ]
    return click.Command(name, params=[*params, *common], callback=run, help=summary, short_help=short)


def _click_option(option: DeviceOption) -> click.Option:
    default = option.default_for(Carrier.VHOST_USER)
    attributes: dict[str, Any] = {"help": option.help, "required": option.required}
    match option.type:
        case OptionType.FLAG:
            attributes["is_flag"] = True
        case OptionType.COUNT:
            attributes["type"] = click.IntRange(min=1)
        case OptionType.CHOICE:
            attributes["type"] = click.Choice(option.choices)
        case OptionType.PATH:
            attributes["type"] = click.Path(exists=True)
    if not option.required and option.type is not OptionType.FLAG:
        attributes |= {"default": default, "show_default": True}
    return click.Option([f"--{option.name}", _parameter_name(option.name)], **attributes)


def _parameter_name(option: str) -> str:
    return f"device_{option.replace('-', '_')}"


def _serve(make: Callable[..., "Device"], values: Mapping[str, Any]) -> int:
    import trio

    from vdev.cli.panel import open_panel
    from vdev.run.serve import ServeOptions
    from vdev.run.serve import serve as serve_device

    device_options = {
        name.removeprefix("device_").replace("_", "-"): value
        for name, value in values.items()
        if name.startswith("device_")
    }
    socket_path = values["socket_path"]
    options = ServeOptions(
        socket_path, values["control_path"] or control_path_of(socket_path), values["once"], values["without"]
    )
    with open_panel() as panel:
        trio.run(partial(serve_device, make, device_options, options, show=panel.show))
    return 0
