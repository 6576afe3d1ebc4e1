"""Fuzz one target, guided by coverage: python tests/fuzz/run.py split-device --seconds 600 --found /tmp/found.

Needs the extra `fuzz` (atheris). New inputs go to `--found`; thin out what is kept with tests/fuzz/minimise.py.
"""

import argparse
import sys
from pathlib import Path

import atheris

_HERE = Path(__file__).parent
sys.path.insert(0, str(_HERE.parent))

with atheris.instrument_imports(include=["spec", "vdev", "guest_agent"]):
    from fuzz.targets import TARGETS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--found", type=Path, required=True, help="where new inputs and crashes go")
    options = parser.parse_args()
    options.found.mkdir(parents=True, exist_ok=True)
    kept = _HERE / "corpus" / options.target
    kept.mkdir(parents=True, exist_ok=True)
    atheris.Setup(
        [
            sys.argv[0],
            str(options.found),
            str(kept),
            f"-max_total_time={options.seconds}",
            "-max_len=1024",
            "-timeout=60",
            f"-artifact_prefix={options.found.parent}/crash-{options.target}-",
            "-print_final_stats=1",
        ],
        TARGETS[options.target],
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
