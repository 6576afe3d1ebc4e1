"""The guests' file systems: an initramfs with busybox, one kernel's drivers, and an init that obeys the console."""

import functools
import lzma
import os
import pathlib
import tempfile

from peers.parts import BOOKWORM, LINUX_BACKPORTS, LINUX_STABLE, UML_ENTROPY, cache

# What the init script says once, and around the output of each command. A kernel message may stand between, or before
# one on the same line: the reader looks for these.
READY = "vdev-guest-ready"
BEGIN = "vdev-guest-begin"
END = "vdev-guest-end"

# Commands come one a line, as NUMBER COMMAND; what a command prints stands between BEGIN NUMBER and END NUMBER STATUS.
# A guest ends with its test. One whose test was killed ends when nobody has asked anything for LONELY seconds.
LONELY = 300

INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
stty -echo -onlcr
echo 1 > /proc/sys/kernel/printk
for module in $(cat /modules/order); do insmod /modules/$module || echo "insmod $module failed"; done
echo {READY} $(uname -r)
while read -t {LONELY} -r number command; do
    echo "{BEGIN} $number"
    eval "$command"
    status=$?
    echo
    echo "{END} $number $status"
done
poweroff -f
"""

DIRECTORIES = ("bin", "dev", "proc", "sys", "mnt", "modules")


class Kernel:
    """One kernel of a tree: its image, the modules that a guest loads, in order, before it listens, and its init.

    ``programs`` are more files of its ``/bin``, by name.
    """

    def __init__(self, name, tree, image, modules, *, init=INIT, programs=None):
        self.name = name
        self.tree = tree
        self._image = image
        self.modules = modules
        self._init = init
        self._programs = programs or {}

    def with_init(self, suffix, init, programs):
        """The same kernel and modules with another ``/init``; whether it loads them is its own business."""
        return Kernel(f"{self.name}-{suffix}", self.tree, self._image, self.modules, init=init, programs=programs)

    @property
    def image(self):
        return self.tree.find(self._image)

    @functools.cached_property
    def initramfs(self):
        """The path of an initramfs for this kernel, made once a run of the tests."""
        files = {"init": self._init.encode(), "bin/busybox": BOOKWORM.find("usr/bin/busybox").read_bytes()}
        files.update({f"bin/{name}": content for name, content in self._programs.items()})
        for tree, pattern in self.modules:
            path = tree.find(pattern)
            content = path.read_bytes()
            name = path.name.removesuffix(".xz")
            files[f"modules/{name}"] = lzma.decompress(content) if path.suffix == ".xz" else content
        files["modules/order"] = "".join(
            f"{pathlib.Path(name).name}\n" for name in files if name.startswith("modules/")
        ).encode()
        archive = cpio(DIRECTORIES, files)
        (cache() / "images").mkdir(exist_ok=True)
        path = cache() / "images" / f"{self.name}.cpio"
        # Tests of two runs may come here at once: each writes its own file, and the last name wins.
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(archive)
        os.replace(file.name, path)
        return path


def _drivers(tree, directory, *names):
    return tuple((tree, f"{directory}/*/kernel/drivers/**/{name}.ko*") for name in names)


_UML_DRIVERS = _drivers(BOOKWORM, "usr/lib/uml/modules", "virtio_balloon", "virtio_blk")
_DRIVERS = ("virtio_balloon", "virtio_blk", "virtio-rng")

UML = Kernel("uml", BOOKWORM, "usr/bin/linux.uml", _UML_DRIVERS)
UML_WITH_ENTROPY = Kernel("uml-entropy", BOOKWORM, "usr/bin/linux.uml", (*_UML_DRIVERS, (UML_ENTROPY, "virtio-rng.ko")))
LINUX_6_12 = Kernel("linux-6.12", LINUX_STABLE, "boot/vmlinuz-*", _drivers(LINUX_STABLE, "usr/lib/modules", *_DRIVERS))
LINUX_7_3 = Kernel("linux-7.3", LINUX_BACKPORTS, "**/vmlinuz*", _drivers(LINUX_BACKPORTS, "usr/lib/modules", *_DRIVERS))


def cpio(directories, files):
    """An archive in the "newc" format (Linux: Documentation/driver-api/early-userspace/buffer-format.rst)."""
    parts = []
    names = [(name, 0o040755, b"") for name in directories]
    # The kernel opens its first console before init runs, and finds it only in the archive.
    names += [(name, 0o100755, content) for name, content in files.items()]
    for inode, (name, mode, content) in enumerate(names, start=1):
        parts += _entry(inode, name, mode, content)
    parts += _entry(len(names) + 1, "dev/console", 0o020600, b"", device=(5, 1))
    parts += _entry(0, "TRAILER!!!", 0, b"")
    return b"".join(parts)


def _entry(inode, name, mode, content, device=(0, 0)):
    encoded = name.encode() + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    return [header, bytes(-len(header) % 4), content, bytes(-len(content) % 4)]
