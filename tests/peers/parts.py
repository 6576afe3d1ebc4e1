"""Where the parts of real peers are, and why one is missing.

A part is a file in a tree of unpacked Debian packages under :func:`cache`; ``set_up.py`` makes the trees. Nothing of
theirs is installed on the machine: a program runs from its tree, by the tree's own dynamic linker.
"""

import functools
import os
import pathlib
import shutil
import subprocess
from dataclasses import dataclass

HINT = "run: make peers"


class Missing(Exception):
    """A part is not on this machine; the message says which, and what brings it."""


def cache():
    """The directory of all trees: ``VDEV_PEERS``, or a directory in the user's cache."""
    named = os.environ.get("VDEV_PEERS")
    if named:
        return pathlib.Path(named)
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "vdev" / "peers"


@dataclass(frozen=True)
class Tree:
    """Unpacked packages of ``suites``. ``closure`` says whether what they depend on is there, too."""

    name: str
    what: str
    suites: tuple[str, ...]
    packages: tuple[str, ...]
    closure: bool = True

    @property
    def root(self):
        return cache() / self.name

    @property
    def stamp(self):
        """Written last, with what the tree holds: a tree without it, or with another list, is made anew."""
        return self.root / "vdev-peers.txt"

    @property
    def recipe(self):
        return f"suites {' '.join(self.suites)}\npackages {' '.join(self.packages)}\n"

    @property
    def is_complete(self):
        return self.stamp.is_file() and self.stamp.read_text().startswith(self.recipe)

    def find(self, pattern):
        """The one file that matches ``pattern``; :class:`Missing` says what brings it."""
        if not self.is_complete:
            raise Missing(f"{self.what} is not set up ({HINT})")
        found = sorted(self.root.glob(pattern))
        if not found:
            raise Missing(f"{pattern} is not in {self.what} ({HINT})")
        return found[-1]

    def command(self, program):
        """The command line that runs a dynamically linked ``program`` of this tree on any x86-64 Linux."""
        path = self.find(program)
        usr = self.root / "usr"
        libraries = ":".join(str(usr / "lib" / sub) for sub in ("x86_64-linux-gnu", "x86_64-linux-gnu/pulseaudio"))
        return [str(self.find("usr/lib64/ld-linux-x86-64.so.2")), "--library-path", libraries, str(path)]


BOOKWORM = Tree(
    "bookworm",
    "user-mode Linux, busybox and QEMU 7.2 of Debian 12",
    ("bookworm",),
    ("user-mode-linux", "busybox-static", "qemu-system-x86", "qemu-utils", "e2fsprogs"),
)
TRIXIE = Tree(
    "trixie",
    "libblkio and virtiofsd of Debian 13",
    ("trixie",),
    ("libblkio1", "python3", "virtiofsd"),
)
BACKPORTS = Tree(
    "backports",
    "QEMU of Debian 13's backports",
    ("trixie", "trixie-backports"),
    ("qemu-system-x86", "qemu-utils"),
)
LINUX_STABLE = Tree("linux-trixie", "Linux of Debian 13", ("trixie",), ("linux-image-cloud-amd64",), closure=False)
LINUX_BACKPORTS = Tree(
    "linux-backports",
    "Linux of Debian 13's backports",
    ("trixie", "trixie-backports"),
    ("linux-image-cloud-amd64",),
    closure=False,
)
DPDK = Tree("dpdk", "DPDK of Debian 12", ("bookworm",), ("dpdk-dev",))
TREES = (BOOKWORM, TRIXIE, BACKPORTS, LINUX_STABLE, LINUX_BACKPORTS, DPDK)

UML_ENTROPY = Tree(
    "uml-entropy",
    "the entropy driver for user-mode Linux",
    ("bookworm",),
    ("linux-source-6.1",),
    closure=False,
)
"""Not unpacked but built: see ``uml_entropy``."""

GENERIC_DEVICE = "vhost-user-test-device-pci"


def qemu_command(tree):
    """The command line of a tree's QEMU, with the directories of its modules (Debian 12's TCG is one) and firmware."""
    usr = tree.root / "usr"
    program = tree.command("usr/bin/qemu-system-x86_64")
    modules = f"QEMU_MODULE_DIR={usr / 'lib/x86_64-linux-gnu/qemu'}"
    return ["env", modules, *program, "-L", str(usr / "share/seabios"), "-L", str(usr / "share/qemu")]


@functools.cache
def generic_qemu_command():
    """A QEMU that has the front end for any device number: the one on PATH if it is new enough, else Debian's."""
    installed = shutil.which("qemu-system-x86_64")
    if installed is not None:
        try:
            answer = subprocess.run([installed, "-device", "help"], capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Missing(f"{installed} does not list its devices: {error}") from error
        if GENERIC_DEVICE in answer.stdout:
            return [installed]
    return qemu_command(BACKPORTS)
