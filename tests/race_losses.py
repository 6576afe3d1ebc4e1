"""Losses that the lab found, one for each combination that is broken; this script writes them anew from a whole table.

`python tests/race_losses.py DIR` takes the schedule files that `vdev race --all --out DIR` left. The file has a line
for each: the combination's label, and the acts of a shortest schedule within the default bound.
"""

import sys
from pathlib import Path

from vdev.race.acts import parse_act
from vdev.race.combinations import default_combinations
from vdev.race.schedule_file import read_schedule

PATH = Path(__file__).parent / "race_losses.txt"


def read_losses():
    """Return combination's label -> (combination, acts)."""
    known = {combination.label: combination for combination in default_combinations()}
    losses = {}
    for line in PATH.read_text().splitlines():
        label, _, acts = line.partition(" | ")
        losses[label] = known[label], tuple(parse_act(act) for act in acts.split("; "))
    return losses


def write_losses(directory):
    schedules = [read_schedule(path) for path in sorted(Path(directory).rglob("*.schedule"))]
    lines = [f"{each.combination.label} | {'; '.join(map(str, each.acts))}\n" for each in schedules if each.lost]
    PATH.write_text("".join(sorted(lines)))


if __name__ == "__main__":
    write_losses(sys.argv[1])
