"""Keep of a target's inputs those that reach something: python tests/fuzz/minimise.py split-device FOLDER...

The smallest inputs go first; one is kept if it takes a step from line to line that none before it took, or took more
than once. What is not kept is removed from tests/fuzz/corpus/TARGET. No fuzzer is needed.
"""

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

_TESTS = Path(__file__).parent.parent
sys.path.insert(0, str(_TESTS))

from fuzz.targets import TARGETS  # noqa: E402 - beside this file, wherever it is run

_CODE = tuple(str(_TESTS.parent / folder) for folder in ("spec", "vdev", "guest_agent"))

Step = tuple[str, int, int]
"""File, from line, to line."""


def steps_of(target: Callable[[bytes], None], data: bytes) -> set[tuple[Step, bool]]:
    """Return the steps that an input takes in the code that is fuzzed, and of each whether more than once."""
    steps: Counter[Step] = Counter()

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(_CODE):
            return None
        last = 0

        def trace_line(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal last
            if event == "line":
                steps[name, last, frame.f_lineno] += 1
                last = frame.f_lineno
            return trace_line

        return trace_line

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        target(data)
    finally:
        sys.settrace(before)
    return {(step, count > 1) for step, count in steps.items()}


def chosen(target: Callable[[bytes], None], inputs: Iterable[bytes]) -> list[bytes]:
    """Return those inputs that are worth keeping, smallest first."""
    seen: set[tuple[Step, bool]] = set()
    kept = []
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        steps = steps_of(target, data)
        if not steps <= seen:
            seen |= steps
            kept.append(data)
    return kept


def main() -> None:
    """Choose among the inputs that are kept and those in the folders that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("folders", type=Path, nargs="*")
    options = parser.parse_args()
    corpus = Path(__file__).parent / "corpus" / options.target
    corpus.mkdir(parents=True, exist_ok=True)
    inputs = [path.read_bytes() for folder in (corpus, *options.folders) for path in sorted(folder.iterdir())]
    kept = chosen(TARGETS[options.target], inputs)
    for path in corpus.iterdir():
        path.unlink()
    for data in kept:
        (corpus / hashlib.sha1(data, usedforsecurity=False).hexdigest()[:12]).write_bytes(data)
    print(f"{options.target}: {len(kept)} of {len(inputs)} inputs kept, {sum(map(len, kept)):,} bytes")


if __name__ == "__main__":
    main()
