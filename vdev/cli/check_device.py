"""Judge a device for a person: set up, run, show."""

import shlex
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from spec.device import feature_names
from spec.vhost_user import LOG_ALL, PROTOCOL_FEATURES, ProtocolFeature
from vdev.check.checks import load_device_checks
from vdev.check.fail_on import FailOn
from vdev.check.plan import TYPE_FEATURES, Case, Wanted, plan
from vdev.check.report.text import Line
from vdev.check.result import CaseResult
from vdev.check.run import Listener, run_cases
from vdev.check.target import DEFAULT_PATIENCE
from vdev.check.target_probe import Offer, offer_of
from vdev.check.target_socket import SocketTarget
from vdev.check.verdict import Verdict
from vdev.cli.check_show import Outputs, describe_broken, print_lines, show_report, terminated_as_interrupted
from vdev.cli.race_display import RaceDisplay, open_race_display
from vdev.devices.kind import Carrier
from vdev.errors import UserError

__all__ = ["check_device", "list_device_checks"]

_ALL = Offer(features=(1 << 128) - 1, protocol_features=(1 << 64) - 1)


def check_device(
    command: str,
    *,
    socket_path: str | None,
    type_name: str | None,
    spawn: str | None,
    patience: float,
    may_write: bool,
    only: Sequence[str],
    skip: Sequence[str],
    seed: int,
    fail_on: str,
    json_path: Path | None,
    junit_path: Path | None,
    html_path: Path | None,
) -> int:
    """Judge, show what came of it, and return the exit status.

    Raises UserError, BadParameter, or another VdevError that says in one line why nobody can be judged.
    """
    if type_name is None:
        raise UserError("say what device it is with --type; generic, if it is none of those that --help lists")
    wanted_status = FailOn.parse(fail_on)
    outputs = Outputs(json_path, junit_path, html_path)
    outputs.check()
    wanted = Wanted(only=only, skip=skip, may_write=may_write)
    # What names nothing is refused before anything is started.
    plan(load_device_checks().values(), type_name, carrier=Carrier.VHOST_USER, offer=_ALL, wanted=wanted)
    with terminated_as_interrupted(), closing(SocketTarget(socket_path, spawn=spawn, patience=patience)) as target:
        offer = offer_of(target)
        target.settle()
        cases = plan(load_device_checks().values(), type_name, carrier=target.carrier, offer=offer, wanted=wanted)
        repeat = _Repeat(command, socket_path, type_name, spawn, patience, may_write, seed)
        subject = _subject(target.place if socket_path else "a directory of its own", type_name, spawn, offer, skip)
        with open_race_display() as display:
            report = run_cases(
                target,
                cases,
                type_name=type_name,
                subject=subject,
                seed=seed,
                listener=_Progress(display),
                repeat=repeat.command,
            )
    return show_report(command, report, outputs, wanted_status)


def _subject(place: str, type_name: str, spawn: str | None, offer: Offer, skip: Sequence[str]) -> dict[str, str]:
    protocol_bits = 1 << PROTOCOL_FEATURES | 1 << LOG_ALL
    subject = {"type": type_name, "socket": place}
    if spawn is not None:
        subject["spawn"] = spawn
    names = feature_names(offer.features & ~protocol_bits, TYPE_FEATURES.get(type_name, ()))
    subject["features"] = ", ".join(names) or "none"
    if offer.protocol_features is not None:
        known = {feature.value: feature.name for feature in ProtocolFeature}
        bits = [bit for bit in range(64) if offer.protocol_features >> bit & 1]
        subject["protocol"] = ", ".join(known.get(bit, str(bit)) for bit in bits) or "none"
    if skip:
        subject["skipped"] = ", ".join(skip)
    return subject


class _Repeat:
    """The command that does one case again."""

    def __init__(
        self,
        command: str,
        socket_path: str | None,
        type_name: str,
        spawn: str | None,
        patience: float,
        may_write: bool,
        seed: int,
    ) -> None:
        words = [*command.split(), *([socket_path] if socket_path else []), "--type", type_name]
        words += ["--spawn", spawn] if spawn is not None else []
        words += ["--patience", f"{patience:g}s"] if patience != DEFAULT_PATIENCE else []
        words += ["--may-write"] if may_write else []
        words += ["--seed", str(seed)] if seed else []
        self._words = words

    def command(self, case: Case) -> str:
        """Return it as one line for a shell."""
        return shlex.join([*self._words, "--only", case.name])


class _Progress(Listener):
    """Shows how far a run is."""

    def __init__(self, display: RaceDisplay) -> None:
        self._display = display
        self._counts: Counter[Verdict] = Counter()

    def starts(self, case: Case, number: int, count: int) -> None:
        self._display.show("checks", "  ".join([*describe_broken(self._counts), case.name]), number, count)

    def ends(self, result: CaseResult) -> None:
        self._counts[result.verdict] += 1


def list_device_checks(type_name: str | None, only: Sequence[str], skip: Sequence[str]) -> int:
    """Print the checks of a device type, of all types without one, and what each covers; return the exit status."""
    wanted = Wanted(only=only, skip=skip, may_write=True)
    checks = load_device_checks()
    chosen = [check for check in checks.values() if not check.types or type_name is None or type_name in check.types]
    cases = plan(chosen, type_name or "", carrier=Carrier.VHOST_USER, offer=_ALL, wanted=wanted)
    lines: list[Line] = []
    for name in dict.fromkeys(case.check.name for case in cases):
        found = checks[name]
        marks = [ring_format.value for ring_format in found.formats]
        marks += sorted(found.types or ())
        marks += [word for word, is_so in (("hostile", found.hostile), ("writes", found.writes)) if is_so]
        if len(found.carriers) == 1:
            marks.append(f"{next(iter(found.carriers)).value} only")
        lines.append(Line(" ".join([name, f" ({', '.join(marks)})"] if marks else [name]), "end"))
        lines.append(Line(f"    {found.summary}"))
        lines += [Line(f"    {statement}", "header") for statement in found.covers]
    lines.append(Line(f"{len(cases)} cases of {len({case.check.name for case in cases})} checks", "end"))
    print_lines(lines)
    return 0
