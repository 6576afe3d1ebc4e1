"""docs/write-a-device.md does what it says: its commands are taken from it and run, with real QEMUs and real guests.

Only paths are put in: a directory for ``/tmp``, a guest for ``KERNEL`` and ``INITRD``, where the programs are. What the
page shows below a command is what comes out of it, but for numbers.
"""

import contextlib
import random
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from peers import guest, image, parts
from peers.have import have

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "write-a-device.md"
EXAMPLE = ROOT / "examples" / "entropy_device.py"
PATIENCE = 120


@dataclass(frozen=True)
class Command:
    """What the page has somebody type, on the host (``$``) or in the guest (``#``), and what it shows below."""

    prompt: str
    line: str
    output: str

    @property
    def words(self):
        return shlex.split(self.line)


def sections():
    """Every section of the page by its heading."""
    return {
        text.partition("\n")[0]: text
        for text in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
        if text.strip()
    }


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(text):
    """The commands of all console blocks of ``text``, in order."""
    found = []
    for block in blocks(text, "console"):
        for prompt, entry in re.findall(r"^([$#]) (.*?)(?=^[$#] |\Z)", block, re.DOTALL | re.MULTILINE):
            line, _, output = entry.replace("\\\n", " ").partition("\n")
            found.append(Command(prompt, line, output))
    return found


def without_numbers(output):
    """``output`` with every number, and every byte in hexadecimal, as N, and no matter how wide it is set."""
    return re.sub(r"\b\d[\d.,]*\b|\b[0-9a-f]{2}\b", "N", " ".join(output.split()))


@dataclass
class Place:
    """Where commands of the page are run: what stands for its paths, and what runs now."""

    directory: Path
    kernel: image.Kernel
    programs: dict[str, list[str]]
    stack: contextlib.AsyncExitStack
    servers: list[trio.Process] = field(default_factory=list)
    running: guest.Guest | None = None
    answers: dict[str, str] = field(default_factory=dict)

    async def obey(self, command):
        """Run one command, and hold what it prints against what the page shows."""
        if command.prompt == "#":
            output = await self.running.run(command.line)
        elif command.words[0] in ("qemu-system-x86_64", "linux.uml"):
            self.running = await self.stack.enter_async_context(guest.boot(self._with_paths(command)))
            return
        elif command.words[:2] == ["vdev", "serve"]:
            await self._serve(command)
            return
        else:
            done = await trio.run_process(self._with_paths(command), cwd=ROOT, capture_stdout=True)
            output = done.stdout.decode()
        self.answers[command.line] = output
        if command.output:
            assert without_numbers(output.replace(str(self.directory), "/tmp")) == without_numbers(command.output)

    async def _serve(self, command):
        process = await trio.lowlevel.open_process(self._with_paths(command), cwd=ROOT, stderr=subprocess.PIPE)
        self.stack.push_async_callback(self._end_server, process)
        with trio.fail_after(PATIENCE):
            assert b"waits for a front end" in await process.stderr.receive_some()

    async def _end_server(self, process):
        process.terminate()
        said = b""
        with trio.fail_after(PATIENCE), trio.CancelScope(shield=True):
            while piece := await process.stderr.receive_some():
                said += piece
            assert await process.wait() == 0, said.decode()
        assert b"error:" not in said, said.decode()

    def _with_paths(self, command):
        program, *words = command.words
        here = {"KERNEL": str(self.kernel.image), "INITRD": str(self.kernel.initramfs)}
        pattern = re.compile(r"/tmp(?=/)|\b(?:KERNEL|INITRD)\b")
        return [
            *self.programs[program],
            *(pattern.sub(lambda match: here.get(match[0], str(self.directory)), word) for word in words),
        ]


async def follow(heading, directory, kernel, **programs):
    """Do what the sections with these headings say, in order; returns what each command printed."""
    known = {"vdev": [sys.executable, "-m", "vdev"], "head": ["head"], **programs}
    async with contextlib.AsyncExitStack() as stack:
        place = Place(directory, kernel, known, stack)
        for command in [command for each in heading for command in commands(sections()[each])]:
            await place.obey(command)
    return place.answers


@pytest.fixture
def qemu_7_2():
    """Debian 12's QEMU and its tool for images, by what the page calls them."""
    return {
        "qemu-system-x86_64": have(lambda: parts.qemu_command(parts.BOOKWORM)),
        "qemu-img": have(lambda: parts.BOOKWORM.command("usr/bin/qemu-img")),
    }


@pytest.fixture
def linux():
    have(lambda: image.LINUX_6_12.initramfs)
    return image.LINUX_6_12


@pytest.mark.process
@pytest.mark.peer_qemu_7_2
async def test_a_class_of_ones_own_is_served_plugged_into_qemu_and_read_in_the_guest(tmp_path, linux, qemu_7_2):
    answers = await follow(["Serve it, plug it in", "Watch it, ask it"], tmp_path, linux, **qemu_7_2)
    (read,) = [output for line, output in answers.items() if "/dev/hwrng" in line]
    read = bytes.fromhex(read)
    thrown = random.Random(6)
    stream = b"".join(thrown.randbytes(16) for _ in range(1 << 16))
    assert len(read) == 16
    assert all(read[at : at + 8] in stream for at in (0, 8))


@pytest.mark.process
@pytest.mark.peer_qemu_7_2
async def test_a_file_is_served_as_a_disk_and_written_by_the_guest(tmp_path, linux, qemu_7_2):
    await follow(["A disk"], tmp_path, linux, **qemu_7_2)


@pytest.mark.process
@pytest.mark.peer_qemu
async def test_a_balloon_is_plugged_into_a_qemu_that_has_a_front_end_for_any_device(tmp_path, linux):
    programs = {"qemu-system-x86_64": have(parts.generic_qemu_command)}
    await follow(["A balloon, and any other device"], tmp_path, linux, **programs)


@pytest.mark.process
@pytest.mark.peer_uml
async def test_a_balloon_serves_a_linux_without_any_virtual_machine(tmp_path):
    have(lambda: image.UML.initramfs)
    programs = {"linux.uml": [str(image.UML.image)]}
    await follow(["Without any virtual machine"], tmp_path, image.UML, **programs)


def test_the_device_in_the_page_is_the_one_in_the_example():
    (shown,) = blocks(PAGE.read_text(), "python")
    source = EXAMPLE.read_text()
    assert shown[shown.index("class ") :] in source
    assert all(line in source for line in shown.splitlines())


def test_the_panel_in_the_page_shows_what_the_answer_below_it_says():
    section = sections()["Watch it, ask it"]
    (panel,) = blocks(section, "text")
    (answer,) = [command.output for command in commands(section) if "status" in command.line]

    def value(text, name):
        return " ".join(re.search(rf"^{name} +(.*(?:\n {{10,}}.*)*)", text, re.MULTILINE)[1].split())

    assert value(panel, "features") == value(answer, "features")
    offered = value(answer, "offered features").split(", ")
    taken = value(answer, "features").split(", ")
    assert value(panel, "not taken").split(", ") == [name for name in offered if name not in taken]
    figures = re.search(r"^ +0 +(\d+) +(\d+) +(\d+) +(\d+) +served$", panel, re.MULTILINE).groups()
    assert re.search(rf"^ +0 +{figures[0]} .* {' +'.join(figures[1:])}$", answer, re.MULTILINE)


def test_every_command_of_the_page_is_run_by_a_test_here():
    run_here = {"Serve it, plug it in", "Watch it, ask it", "A disk", "A balloon, and any other device"}
    run_here.add("Without any virtual machine")
    for heading, text in sections().items():
        if heading not in run_here:
            assert [command.line for command in commands(text)] in ([], ["make demo"]), heading
