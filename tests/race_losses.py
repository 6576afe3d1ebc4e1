"""A shortest loss for each combination of the table that is broken; `python tests/race_losses.py` finds them anew.

It asks the naive model, which is quick. A line of the file has the combination's label and the acts.
"""

from pathlib import Path

from race_model import search
from race_model_state import Case

from vdev.race.acts import parse_act
from vdev.race.combination import Bound
from vdev.race.combinations import default_combinations

PATH = Path(__file__).parent / "race_losses.txt"
BOUND = Bound()


def read_losses():
    """Return combination's label -> (combination, acts)."""
    known = {combination.label: combination for combination in default_combinations()}
    losses = {}
    for line in PATH.read_text().splitlines():
        label, _, acts = line.partition(" | ")
        losses[label] = known[label], tuple(parse_act(act) for act in acts.split("; "))
    return losses


def find_losses(combinations):
    """Return the lines that the file should have for these."""
    lines = []
    for combination in combinations:
        words = combination.to_json()
        words["log"] = words.pop("dirty_log")
        words["vcpus"] = int(words["vcpus"])
        numbers = {"pages": BOUND.pages, "writes": BOUND.writes, "hints": BOUND.hints, "syncs": BOUND.syncs}
        loss = search(Case(**words, **numbers)).loss
        if loss is not None:
            lines.append(f"{combination.label} | {'; '.join(loss)}\n")
    return lines


if __name__ == "__main__":
    PATH.write_text("".join(find_losses(default_combinations())))
