#!/usr/bin/env python3
"""Run a real Linux guest that uses the device behind a vhost-user socket by itself, and powers off.

    vdev check driver --type block --socket S --spawn "python tests/peers/judged_guest.py uml block {socket}"

    python tests/peers/judged_guest.py uml|linux-6.12|linux-7.3 balloon|block|entropy SOCKET [--rounds N] [--passes N]

Whoever ends this process, by SIGTERM or SIGKILL, ends the guest.
"""

import argparse
import contextlib
import ctypes
import os
import pathlib
import shlex
import signal
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from peers import exercise, guest, image, parts

# Of each device under QEMU: number, queues, their size, bytes of configuration space. A disk's queue is large: Linux
# takes a disk's seg_max at its word, however few descriptors the queue has.
SHAPES = {"balloon": (5, 5, 64, 16), "block": (2, 1, 256, 96), "entropy": (4, 1, 64, 0)}
MEMORY_MIB = 192

PR_SET_PDEATHSIG = 1

GUESTS = {
    "uml": ("Linux 6.1 (user-mode)", image.UML_WITH_ENTROPY),
    "linux-6.12": ("Linux 6.12 (QEMU)", image.LINUX_6_12),
    "linux-7.3": ("Linux 7.3 (QEMU)", image.LINUX_7_3),
}


def command(name, kind, socket, *, rounds=1, passes=1000):
    """The command line of guest ``name`` with a device of ``kind`` at ``socket``; raises :class:`parts.Missing`."""
    kernel = exercise.exercised(_kernel(name, kind))
    words = exercise.arguments(kind, rounds, passes)
    number, queue_count, queue_size, config_size = SHAPES[kind]
    if kernel.tree is parts.BOOKWORM:
        line = guest.user_mode_linux(f"{socket}:{number}", kernel=kernel, memory_mib=MEMORY_MIB)
        return [*(word.replace("con0=fd:0,fd:1", "con0=null,fd:1") for word in line), *words]
    options = [
        *("-boot", "strict=on"),  # else the firmware has a driver for disks, which would be judged first
        *("-chardev", f"socket,id=vu0,path={socket}", "-device"),
        f"{parts.GENERIC_DEVICE},virtio-id={number},num_vqs={queue_count},vq_size={queue_size},"
        f"config_size={config_size},chardev=vu0",
    ]
    line = guest.qemu(kernel, *options, memory_mib=MEMORY_MIB)
    at = line.index("-append") + 1
    line[at] = " ".join((line[at], *words))
    return line


def _kernel(name, kind):
    # Only its entropy driver has to be built; without it user-mode Linux has the other two.
    return image.UML if (name, kind) != ("uml", "entropy") and name == "uml" else GUESTS[name][1]


def judged_guests():
    """Yield (peer, type, command) of every guest whose parts are here; ``{socket}`` stands for the socket's path."""
    for name, (peer, _) in GUESTS.items():
        for kind in exercise.TYPES:
            try:
                command(name, kind, "SOCKET")
            except parts.Missing:
                continue
            yield peer, kind, f"{shlex.quote(sys.executable)} {shlex.quote(__file__)} {name} {kind} {{socket}}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("guest", choices=GUESTS)
    parser.add_argument("type", choices=exercise.TYPES)
    parser.add_argument("socket")
    parser.add_argument("--rounds", type=int, default=1, help="from probe to removal")
    parser.add_argument("--passes", type=int, default=1000, help="uses of the device in each round")
    given = parser.parse_args()
    try:
        line = command(given.guest, given.type, given.socket, rounds=given.rounds, passes=given.passes)
    except parts.Missing as missing:
        sys.exit(str(missing))
    sys.exit(run(line))


def run(line):
    """Run a guest, and end it when this process is to end; returns its exit status.

    User-mode Linux is several processes, and hears no SIGTERM.
    """
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork
    child = subprocess.Popen(
        line, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    )

    def end(*_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    return child.wait()


if __name__ == "__main__":
    main()
