#!/usr/bin/env python3
"""Judge the real peers that are on this machine, and write docs/conformance.md.

    python tests/peers/scoreboard.py [--results DIRECTORY] [--peer NAME ...] [--times N] [--page-only]

The first run does everything, the others (three runs in all) what the first one found broken. Reports are kept in
DIRECTORY (check-results), one JSON file for each run; a run that is there is not done again, and with ``--page-only``
the page is made from those that are there. What a peer broke in some runs only is told apart.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from peers import parts
from peers.judged_devices import device_peers
from peers.judged_guest import judged_guests
from spec.statements import catalogue
from vdev.check.report.json_report import report_from_json
from vdev.check.report.words import dump_bytes
from vdev.check.result import CaseResult, Report
from vdev.check.verdict import Verdict

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "conformance.md"
RUN_LIMIT = 1800
BROKEN = (Verdict.FAIL, Verdict.CRASHED, Verdict.HUNG)
MOST_ROWS = 4

INTRODUCTION = """# What real devices and drivers do

Made by `make conformance`: each peer, as Debian ships it, is judged by `vdev check`, and what was found broken is done
again until it was done {times} times. A finding is what was observed each time, with the statement that it was held
against; it is no verdict on a project. What was seen in some runs only is marked so. `N/A` is what a peer does not
offer, and what belongs to another carrier or device type. Of DPDK only what is about rings is judged, for each of its
connections takes a second; entropy drivers are judged with user-mode Linux.
"""


@dataclass(frozen=True)
class Contest:
    """One peer to be judged: the arguments of ``vdev check`` behind --json."""

    name: str
    side: str
    type: str
    arguments: tuple[str, ...]

    @property
    def slug(self):
        return re.sub(r"[^a-z0-9]+", "-", f"{self.side} {self.name} {self.type}".lower()).strip("-")


def contests(directory):
    """Every peer on this machine, and the reasons why others are not."""
    devices, missing = device_peers(directory)
    found = [Contest(peer.name, "device", peer.type, ("--spawn", peer.spawn, *peer.options)) for peer in devices]
    for name, kind, spawn in judged_guests():
        if kind == "entropy" and "user-mode" not in name:
            continue
        found.append(Contest(name, "driver", kind, ("--spawn", spawn)))
    return found, missing


def judge(contest, directory, file, names=()):
    """Run vdev check once, for all or for these names; its report goes to ``file``."""
    with tempfile.TemporaryDirectory(prefix="vdev-judged-") as scratch:
        place = str(Path(scratch) / "s")
        where = (place,) if contest.side == "device" else ("--socket", place)
        command = [sys.executable, "-m", "vdev", "check", contest.side, *where, "--type", contest.type]
        arguments = contest.arguments[:2] if names else contest.arguments
        command += [*arguments, *(["--may-write"] if "--may-write" in contest.arguments and names else [])]
        command += [word for name in names for word in ("--only", name)]
        unfinished = file.with_suffix(".unfinished")
        command += ["--json", str(unfinished), "--fail-on", "none"]
        subprocess.run(command, cwd=directory, stdout=subprocess.DEVNULL, check=True, timeout=RUN_LIMIT)
        unfinished.rename(file)


def broken_names(report):
    """The cases that a report finds broken."""
    return sorted({case.name for case in report.cases if case.verdict in BROKEN})


def load(file):
    return report_from_json(json.loads(file.read_text(encoding="utf-8")))


def page(results, missing, times):
    """The whole page; ``results`` is contest -> reports."""
    lines = [INTRODUCTION.format(times=times)]
    for side, title in (("device", "Devices"), ("driver", "Drivers")):
        chosen = {contest: reports for contest, reports in results.items() if contest.side == side}
        if not chosen:
            continue
        lines += [f"## {title}", ""]
        lines += [
            "| peer | type | statements kept | broken | cases | PASS | FAIL | CRASHED | HUNG | INCONCLUSIVE | N/A |"
        ]
        lines += ["|---|---|---|---|---|---|---|---|---|---|---|"]
        lines += [row(contest, reports[0]) for contest, reports in chosen.items()]
        lines += ["", "Figures are of the first run.", ""]
        for contest, reports in chosen.items():
            lines += findings(contest, reports)
    if missing:
        lines += ["## Not judged", "", *(f"- {reason}" for reason in missing), ""]
    return "\n".join(lines).rstrip() + "\n"


def row(contest, report: Report):
    statements = report.statements()
    kept = sum(result.verdict is Verdict.PASS for result in statements)
    broken = sum(result.verdict in BROKEN for result in statements)
    order = (Verdict.PASS, Verdict.FAIL, Verdict.CRASHED, Verdict.HUNG, Verdict.INCONCLUSIVE, Verdict.NOT_APPLICABLE)
    counts = " | ".join(str(report.count(verdict)) for verdict in order)
    return f"| {contest.name} | {contest.type} | {kept} | {broken} | {len(report.cases)} | {counts} |"


def findings(contest, reports):
    """A section on what one peer broke, and how often."""
    seen = {}
    for report in reports:
        for case in report.cases:
            if case.verdict in BROKEN:
                seen.setdefault((case.check, case.verdict, case.statement), []).append(case)
    lines = [f"### {contest.name}, {contest.type}", ""]
    if not seen:
        return [*lines, f"Nothing that breaks a statement in {len(reports)} runs.", ""]
    always = {key: cases for key, cases in seen.items() if run_count(cases, reports) == len(reports)}
    for cases in always.values():
        lines += finding(cases)
    for key, cases in seen.items():
        if key not in always:
            lines += [
                f"- {cases[0].verdict.value} `{cases[0].name}` in {run_count(cases, reports)} of {len(reports)} runs:"
                f" {clean(cases[0].why)}"
            ]
    return [*lines, ""]


def run_count(cases, reports):
    return sum(any(case in report.cases for case in cases) for report in reports)


def finding(cases: list[CaseResult]):
    case = cases[0]
    variants = sorted({one.variant for one in cases if one.variant})
    where = f" ({', '.join(variants)})" if variants else ""
    lines = [f"- **{case.verdict.value}** `{case.check}`{where}: {case.summary}"]
    for name in [case.statement] if case.statement else case.covers[:1]:
        statement = catalogue()[name]
        lines.append(f"  Held against `{name}` ({statement.level}): {statement.text}")
    if case.evidence.expected:
        lines.append(f"  Expected {clean(case.evidence.expected)}; observed {clean(case.evidence.observed)}.")
    else:
        lines.append(f"  Observed: {clean(case.why)}.")
    for shown in case.evidence.shown[:1]:
        rows = dump_bytes(shown)[:MOST_ROWS]
        if rows:
            lines += ["", "  ```text", f"  {clean(shown.name)}", *(f"  {one}" for one in rows), "  ```", ""]
    return lines


def clean(text):
    """``text`` in one line, without paths of the machine on which it was made."""
    text = re.sub(r"\S*/vdev-(?:judged|check)-\w+/", "DIRECTORY/", text.replace(str(parts.cache()), "PEERS"))
    return re.sub(r"\s+", " ", text.replace(str(Path.home()), "~")).strip().rstrip(".")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("check-results"))
    parser.add_argument("--peer", action="append", default=[], help="a part of a name; only these are judged")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--page-only", action="store_true")
    options = parser.parse_args()
    options.results.mkdir(exist_ok=True)
    os.environ.setdefault("PYTHONHASHSEED", "0")
    with tempfile.TemporaryDirectory(prefix="vdev-judged-") as scratch:
        found, missing = contests(Path(scratch))
        for contest in found:
            if options.page_only or not all(word in f"{contest.name} {contest.type}" for word in options.peer):
                continue
            files = [(options.results / f"{contest.slug}.{number}.json").resolve() for number in range(options.times)]
            for number, file in enumerate(files):
                names = () if number == 0 else broken_names(load(files[0]))
                if file.exists() or (number and not names):
                    continue
                print(f"{contest.side} {contest.name} ({contest.type}), run {number + 1}", file=sys.stderr, flush=True)
                judge(contest, scratch, file, names)
    results = {}
    for contest in found:
        files = sorted(options.results.glob(f"{contest.slug}.[0-9]*.json"))
        if files:
            results[contest] = [load(file) for file in files]
        else:
            missing.append(f"{contest.name}, {contest.type}: not run")
    PAGE.write_text(page(results, missing, options.times), encoding="utf-8")
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
