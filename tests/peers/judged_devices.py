"""Back ends that others wrote, each with the command line that `vdev check device --spawn` starts it with."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from peers import parts

RING_CHECKS = tuple(
    word
    for subject in ("used", "visible", "untouched", "wrap", "size", "framing", "indirect", "in-order", "calls", "kicks")
    for word in ("--only", f"{subject}.*")
)


@dataclass(frozen=True)
class Peer:
    """``spawn`` has ``{socket}`` where the path of the socket goes; ``options`` are for vdev check device."""

    name: str
    type: str
    spawn: str
    options: tuple[str, ...] = ()


def storage_daemon(tree, disk):
    """A qemu-storage-daemon that serves a file of the disk's bytes."""
    return [
        *tree.command("usr/bin/qemu-storage-daemon"),
        *("--blockdev", f"driver=file,node-name=disk,filename={disk},discard=unmap"),
        *("--export", "type=vhost-user-blk,id=export,node-name=disk,writable=on,addr.type=unix,addr.path={socket}"),
    ]


def virtiofsd(shared):
    """The virtiofsd written in Rust, on rust-vmm's vhost-user back end; it serves one front end and ends."""
    return [
        *parts.TRIXIE.command("usr/libexec/virtiofsd"),
        *("--socket-path={socket}", f"--shared-dir={shared}", "--sandbox=none", "--seccomp=none"),
    ]


def testpmd():
    """DPDK's test program with one vhost-user port; it sends back what it gets. It keeps a core busy while it runs."""
    drivers = parts.DPDK.find("usr/lib/x86_64-linux-gnu/dpdk/pmds-*/librte_net_vhost.so").parent
    return [
        *parts.DPDK.command("usr/bin/dpdk-testpmd"),
        *("--no-huge", "-m", "256", "--no-pci", "--no-shconf", "--no-telemetry", "-l", "0,1"),
        *(word for name in ("net_vhost", "mempool_ring") for word in ("-d", str(drivers / f"librte_{name}.so"))),
        *("--vdev", "net_vhost0,iface={socket},queues=1", "--"),
        *("--total-num-mbufs=2048", "--auto-start", "--forward-mode=macswap", "--no-lsc-interrupt"),
        "--stats-period=3600",  # else it ends at the end of its standard input
    ]


def device_peers(directory: Path):
    """The peers that are on this machine, and the reasons why others are not; their files are in ``directory``."""
    disk, shared = directory / "disk", directory / "shared"
    if not disk.exists():
        disk.write_bytes(bytes(range(256)) * (1 << 15))
    shared.mkdir(exist_ok=True)
    found, missing = [], []
    for name, kind, command, options in (
        ("qemu-storage-daemon 7.2", "block", lambda: storage_daemon(parts.BOOKWORM, disk), ("--may-write",)),
        ("qemu-storage-daemon 11.1", "block", lambda: storage_daemon(parts.BACKPORTS, disk), ("--may-write",)),
        ("virtiofsd 1.13", "fs", lambda: virtiofsd(shared), ()),
        # Each of its connections takes a second: only what is about rings.
        ("DPDK 22.11 testpmd", "net", testpmd, RING_CHECKS),
    ):
        try:
            found.append(Peer(name, kind, shlex.join(command()), options))
        except parts.Missing as reason:
            missing.append(f"{name}: {reason}")
    return found, missing
