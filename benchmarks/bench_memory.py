"""What host and migrator take beyond guest RAM while a guest moves: at most 96 MiB and 4 bytes per page.

    python benchmarks/bench_memory.py [--ram 1GiB]

Looks every few milliseconds at anonymous and file-backed pages of the source's and the destination's processes (guest
RAM is shared memory and does not count), and prints the most it saw. Exit status 1 if a process took more.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

ALLOWED_SIZE = 96 << 20
PAGE_SIZE = 4096
INTERVAL = 0.005


def private_size(pid: int) -> int:
    """Bytes of anonymous and file-backed memory of a process."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return sum(int(lines[kind].split()[0]) * 1024 for kind in ("RssAnon", "RssFile") if kind in lines)


def children_of(pid: int) -> list[int]:
    """Children by whichever thread started them."""
    lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for children in lists for child in children.split()]


def peaks(command: list[str]) -> dict[str, int]:
    """Run `vdev migrate` and return the peak of each kind of process, bytes."""
    migration = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found = {"host and migrator (source)": 0, "destination": 0, "guest processes": 0}
    while migration.poll() is None:
        try:
            found["host and migrator (source)"] = max(found["host and migrator (source)"], private_size(migration.pid))
            for child in children_of(migration.pid):
                is_guest = b"guest_agent" in Path(f"/proc/{child}/cmdline").read_bytes()
                kind = "guest processes" if is_guest else "destination"
                found[kind] = max(found[kind], private_size(child))
        except (FileNotFoundError, ProcessLookupError):
            pass  # One ended while we looked.
        time.sleep(INTERVAL)
    if migration.returncode:
        sys.exit(f"the migration failed with status {migration.returncode}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ram", default="1GiB")
    options = parser.parse_args()
    from vdev.cli.sizes import parse_size

    page_count = parse_size(options.ram) // PAGE_SIZE
    allowed = ALLOWED_SIZE + 4 * page_count
    table = Table("process", "peak beyond guest RAM", "allowed", title=f"memory while a guest of {options.ram} moves")
    command = [sys.executable, "-m", "vdev", "migrate", "--ram", options.ram, "--workload", "churn", "--json", "-"]
    found = peaks(command)
    for name, size in found.items():
        limit = f"{allowed / (1 << 20):.0f} MiB" if name != "guest processes" else "-"
        table.add_row(name, f"{size / (1 << 20):.1f} MiB", limit)
    Console().print(table)
    return int(any(size > allowed for name, size in found.items() if name != "guest processes"))


if __name__ == "__main__":
    sys.exit(main())
