#!/usr/bin/env python3
"""Fetch the real peers that the tests work with: user-mode Linux, two QEMUs, two kernels, libblkio, virtiofsd, DPDK.

    python3 tests/peers/set_up.py [--list]

They are Debian packages, fetched by apt from where the machine's own apt fetches, checked by apt, and unpacked into
trees under ``VDEV_PEERS`` (default: the user's cache, vdev/peers). Nothing is installed and nothing needs root. A tree
that is complete is left alone, so a second run needs no network; what a broken run fetched is used again.
"""

import fcntl
import getpass
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from peers import parts, uml_entropy

KEYRING = pathlib.Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SUITES = ("bookworm", "trixie", "forky", "oldstable", "stable", "testing", "unstable", "sid")
TOOLS = {"apt-get": "apt", "dpkg-deb": "dpkg"}
UNPACKED_WITHOUT_CLOSURE = ("linux-image-", "linux-binary-", "linux-modules-", "linux-source-")


class CannotSetUp(Exception):
    """A part cannot be had here; the message says why in one line."""


def main():
    only_list = sys.argv[1:] == ["--list"]
    if sys.argv[1:] and not only_list:
        sys.exit(__doc__)
    parts.cache().mkdir(parents=True, exist_ok=True)
    with (parts.cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two runs at once, one waits, and then finds all there
        return set_up(only_list)


def set_up(only_list):
    missing = False
    for tree in (*parts.TREES, parts.UML_ENTROPY):
        started = time.monotonic()
        try:
            if not tree.is_complete and not only_list:
                check_machine()
                make(tree, build_uml_entropy if tree is parts.UML_ENTROPY else unpack)
            state = state_of(tree)
        except CannotSetUp as error:
            state = f"missing: {error}"
        missing |= not tree.is_complete
        print(f"{tree.name:16} {time.monotonic() - started:4.0f} s  {tree.what}: {state}", flush=True)
    print(f"in {parts.cache()}")
    return 1 if missing else 0


def state_of(tree):
    if not tree.is_complete:
        return "missing: not set up yet"
    package_count = len(tree.stamp.read_text().splitlines()) - len(tree.recipe.splitlines())
    return f"{package_count} packages"


def make(tree, fill):
    """Make the tree: resolve, fetch, have ``fill`` put files beside, and rename when it is whole."""
    apt = Apt(tree)
    apt.update()
    versions = apt.resolve()
    archives = apt.fetch(versions)
    unfinished = tree.root.with_name(f"{tree.name}.unfinished")
    for old in (unfinished, tree.root):
        shutil.rmtree(old, ignore_errors=True)
    unfinished.mkdir()
    fill(archives, unfinished)
    (unfinished / tree.stamp.name).write_text(tree.recipe + "".join(f"{version}\n" for version in versions))
    unfinished.rename(tree.root)
    shutil.rmtree(apt.root)
    if tree is parts.BOOKWORM:
        # A module fits one kernel.
        shutil.rmtree(parts.UML_ENTROPY.root, ignore_errors=True)


def unpack(archives, root):
    """Unpack all archives over each other, in a root laid out as Debian's: bin, lib, lib64 and sbin inside usr."""
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for archive in archives:
        run(["dpkg-deb", "--fsys-tarfile", str(archive)], ["tar", "-x", "-C", str(root), *TAR_OPTIONS])


def build_uml_entropy(archives, root):
    """Build the one module from the source that the tree's kernel was built from; nothing else is kept."""
    release = parts.BOOKWORM.find("usr/lib/uml/modules/*").name
    configuration = parts.BOOKWORM.find("usr/share/doc/user-mode-linux/config.gz")
    with tempfile.TemporaryDirectory(dir=parts.cache()) as scratch:
        name = "linux-source-6.1"
        wanted = [f"{name}/{path}" for path in uml_entropy.NEEDED]
        run(
            ["dpkg-deb", "--fsys-tarfile", str(archives[0])],
            ["tar", "-x", "-O", f"./usr/src/{name}.tar.xz"],
            ["tar", "-x", "-J", "-C", scratch, *wanted],
        )
        module = pathlib.Path(scratch) / "virtio-rng.ko"
        try:
            uml_entropy.build(pathlib.Path(scratch) / name, release, configuration, module)
        except subprocess.CalledProcessError as error:
            raise CannotSetUp(f"it does not compile: {last_line(error.stderr)}") from error
        shutil.move(module, root)


# Links of merged /usr stay links although old packages ship directories there; nobody's ownership is kept.
TAR_OPTIONS = ("--keep-directory-symlink", "--no-same-owner", "--no-same-permissions")


def check_machine():
    if platform.machine() != "x86_64":
        raise CannotSetUp(f"the packages are for x86_64, this is {platform.machine()}")
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            raise CannotSetUp(f"{tool} is missing: these are Debian's packages (package {package})")
    if not KEYRING.exists():
        raise CannotSetUp("apt cannot check Debian's signatures; as root: apt-get install debian-archive-keyring")


class Apt:
    """An apt of its own for one tree: own lists, own idea that nothing is installed, own archive directory."""

    def __init__(self, tree):
        self.tree = tree
        self.root = parts.cache() / f"{tree.name}.apt"
        self.archives = self.root / "archives"
        for directory in (self.root / "lists" / "partial", self.archives / "partial"):
            directory.mkdir(parents=True, exist_ok=True)
        (self.root / "status").touch()
        source = debian_source()
        (self.root / "sources.list").write_text(
            "".join(f"deb [arch=amd64 signed-by={KEYRING}] {source} {suite} main\n" for suite in tree.suites)
        )
        settings = {
            "Dir::State": self.root,
            "Dir::State::Lists": self.root / "lists",
            "Dir::State::status": self.root / "status",
            "Dir::Cache": self.root,
            "Dir::Cache::Archives": self.archives,
            "Dir::Etc::SourceList": self.root / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "APT::Architecture": "amd64",
            "APT::Default-Release": tree.suites[-1],
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": getpass.getuser(),
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Debug::NoLocking": "true",
        }
        self.options = [f"--option={name}={value}" for name, value in settings.items()]

    def update(self):
        run(["apt-get", *self.options, "--quiet", "--error-on=any", "update"])

    def resolve(self):
        """The packages that the tree needs, each as name=version."""
        if self.tree is parts.UML_ENTROPY:
            return [self._source_of_uml()]
        command = ["apt-get", *self.options, "--simulate", "install", *self.tree.packages]
        # Inst linux-base (4.12 Debian:13/stable [all])
        installed = [line.split() for line in run(command).splitlines() if line.startswith("Inst ")]
        return sorted(
            f"{words[1]}={words[2].removeprefix('(')}"
            for words in installed
            if self.tree.closure or words[1].startswith(UNPACKED_WITHOUT_CLOSURE)
        )

    def _source_of_uml(self):
        """The source package whose version is that of the kernel, of several that the archive keeps."""
        for tool, packages in (("cc", "gcc libc6-dev"), ("xz", "xz-utils")):
            if shutil.which(tool) is None:
                raise CannotSetUp(f"it is built with {tool}, which is missing; as root: apt-get install {packages}")
        try:
            release = parts.BOOKWORM.find("usr/lib/uml/modules/*").name
        except parts.Missing as error:
            raise CannotSetUp(str(error)) from error
        (package,) = self.tree.packages
        # linux-source-6.1 | 6.1.176-1 | SOURCE bookworm/main amd64 Packages
        for line in run(["apt-cache", *self.options, "madison", package]).splitlines():
            version = line.split("|")[1].strip()
            if version.startswith(f"{release}-"):
                return f"{package}={version}"
        raise CannotSetUp(f"{package} is not there in version {release}, of which user-mode Linux was built")

    def fetch(self, versions):
        """The archives; apt leaves alone those that are there and right."""
        run(["apt-get", *self.options, "--quiet", "download", *versions], directory=self.archives)
        archives = sorted(self.archives.glob("*.deb"))
        # apt's name of the file: linux-base_4.12_all.deb, a colon of the version as %3a
        wanted = {version.replace("=", "_", 1).replace(":", "%3a") for version in versions}
        return [archive for archive in archives if archive.stem.rsplit("_", 1)[0] in wanted]


def debian_source():
    """Where the machine's apt has Debian itself from."""
    shown = run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"])
    for line in shown.splitlines():
        address, suite, component = line.split()
        if suite in SUITES and component == "main":
            return address
    raise CannotSetUp("the machine's apt has no source of Debian's main archive to take packages from")


def run(command, *into, directory=None):
    """The output of ``command``, fed through each of ``into``; :class:`CannotSetUp` has a failure's last line."""
    processes = []
    with tempfile.TemporaryFile() as complaints:
        for one in (command, *into):
            source = processes[-1].stdout if processes else subprocess.DEVNULL
            processes.append(
                subprocess.Popen(one, cwd=directory, stdin=source, stdout=subprocess.PIPE, stderr=complaints)
            )
            if source is not subprocess.DEVNULL:
                source.close()
        output = processes[-1].stdout.read()
        statuses = [process.wait() for process in processes]
        complaints.seek(0)
        if any(statuses):
            raise CannotSetUp(f"{command[0]}: {last_line(complaints.read().decode(errors='replace'))}")
    return output.decode(errors="replace")


def last_line(text):
    return (text.strip().splitlines() or ["no message"])[-1]


if __name__ == "__main__":
    sys.exit(main())
