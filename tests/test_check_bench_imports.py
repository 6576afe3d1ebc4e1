"""The bench shares no ring and no session code with our own two sides: a fault that stood in both could not be seen."""

import ast
from pathlib import Path

import vdev.check.bench

SHARED = {
    "vdev.vhost_user.framing",  # messages as bytes
    "vdev.mmio",  # the other side of the registers, which are in this process
}
FORBIDDEN = ("guest_agent", "host_migrator", "trio", "vdev.device", "vdev.mmio", "vdev.vhost_user", "vdev.virtqueue")
ALLOWED = ("vdev.devices.kind",)


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_the_bench_imports_neither_side():
    files = sorted(Path(vdev.check.bench.__file__).parent.glob("*.py"))
    assert len(files) > 20
    found = {
        (path.name, name)
        for path in files
        for name in imported(path)
        if name.startswith(FORBIDDEN) and name not in SHARED and not name.startswith(ALLOWED)
    }
    assert found == set()
