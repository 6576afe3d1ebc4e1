"""A Linux guest that somebody else wrote: started, told what to do over its console, and always ended."""

import contextlib
import os
import signal
import subprocess

import trio

from peers import image, parts

# Generous: a guest that is only slow is not a failure, and one that hangs says what it printed.
BOOT_LIMIT = 60
COMMAND_LIMIT = 60


class GuestFailed(AssertionError):
    """The guest ended, hung, or a command in it failed; the message ends with what it printed last."""


class Guest:
    """A running guest. :meth:`run` has its shell execute one line."""

    def __init__(self, process):
        self.process = process
        self.console = bytearray()
        self._grown = trio.Event()
        self._count = 0

    @property
    def kernel(self):
        """The version of the guest's kernel."""
        return self._after(image.READY, 0).split()[0]

    async def run(self, command, *, limit=COMMAND_LIMIT):
        """What ``command`` printed. It is one line of shell; a status other than 0 raises :class:`GuestFailed`."""
        self._count += 1
        number = self._count
        where = len(self.console)
        await self.process.stdin.send_all(f"{number} {command}\n".encode())
        await self._wait_for(f"{image.END} {number} ", where, limit)
        printed = self._after(f"{image.BEGIN} {number}\n", where)
        output, _, status = printed.partition(f"{image.END} {number} ")
        if int(status.split()[0]) != 0:
            raise GuestFailed(f"{command}: status {status.split()[0]}\n{output}")
        return output.removesuffix("\n")

    async def memory(self):
        """The guest's own ``/proc/meminfo``, in bytes by name."""
        lines = (await self.run("cat /proc/meminfo")).splitlines()
        return {name: int(rest.split()[0]) * 1024 for name, rest in (line.split(":") for line in lines if ":" in line)}

    async def _read_console(self):
        while chunk := await self.process.stdout.receive_some():
            self.console += chunk.replace(b"\r", b"")
            self._grown.set()
            self._grown = trio.Event()
        self._grown.set()
        self._grown = None

    async def _wait_for(self, text, where, limit):
        """Wait until the console has ``text`` and the rest of its line after ``where``."""
        with trio.move_on_after(limit):
            while True:
                found = self.console.find(text.encode(), where)
                if found >= 0 and self.console.find(b"\n", found) >= 0:
                    return
                if self._grown is None:
                    raise GuestFailed(f"the guest ended (status {self.process.returncode}):\n{self._last()}")
                await self._grown.wait()
        raise GuestFailed(f"no {text!r} from the guest within {limit} s:\n{self._last()}")

    def _after(self, text, where):
        return self.console[self.console.index(text.encode(), where) + len(text) :].decode(errors="replace")

    def _last(self):
        return self.console[-3000:].decode(errors="replace")


@contextlib.contextmanager
def lone_error():
    """A nursery wraps an error of its body in a group; let a lone one out, for a test's report is easier to read."""
    try:
        yield
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        raise group.exceptions[0] from None


@contextlib.asynccontextmanager
async def boot(command):
    """Run ``command``, whose standard input and output are a guest's console, until the body ends."""
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    guest = Guest(process)
    with lone_error():
        async with process.stdin, process.stdout, trio.open_nursery() as nursery:
            try:
                nursery.start_soon(guest._read_console)
                await guest._wait_for(image.READY, 0, BOOT_LIMIT)
                yield guest
            finally:
                end(process)
                with trio.CancelScope(shield=True):
                    await process.wait()
                nursery.cancel_scope.cancel()


def end(process):
    """Kill a guest: user-mode Linux is several processes, one session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def user_mode_linux(*devices, kernel=image.UML, memory_mib=256):
    """The command line of a user-mode Linux whose virtio devices are ``SOCKET:ID`` each."""
    return [
        str(kernel.image),  # by the machine's own linker: a kernel that is a program finds its memory by its own name
        f"mem={memory_mib}M",
        f"initrd={kernel.initramfs}",
        "rdinit=/init",
        "con=null",
        "con0=fd:0,fd:1",
        "ssl=null",
        "panic=1",
        "quiet",
        *(f"virtio_uml.device={device}" for device in devices),
    ]


def qemu(kernel, *options, command=None, memory_mib=256):
    """The command line of a QEMU that boots ``kernel`` with RAM that a back end can map.

    Always TCG: a machine's KVM may be one that cannot boot a stock kernel, and a test is to mean the same everywhere.
    Pages are not zeroed when they are handed out, for that costs 26 ms for each block of 4 MiB under TCG.
    """
    return [
        *(command or parts.generic_qemu_command()),
        *("-nodefaults", "-no-user-config", "-nographic", "-no-reboot"),
        *("-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", f"{memory_mib}M"),
        *("-M", "q35,memory-backend=m0"),
        *("-object", f"memory-backend-memfd,id=m0,size={memory_mib}M,share=on"),
        *("-serial", "stdio", "-monitor", "none"),
        *("-kernel", str(kernel.image), "-initrd", str(kernel.initramfs)),
        *("-append", "console=ttyS0 rdinit=/init panic=-1 quiet init_on_alloc=0 random.trust_cpu=on"),
        *options,
    ]


def generic_devices(*devices):
    """QEMU's options for its front end of any device number: (socket, device, bytes of config, queue size) each."""
    options = []
    for number, (socket, device, config_size, queue_size) in enumerate(devices):
        options += ["-chardev", f"socket,id=vu{number},path={socket}", "-device"]
        options.append(
            f"{parts.GENERIC_DEVICE},virtio-id={int(device.device_id)},num_vqs={len(device.queue_sizes)},"
            f"vq_size={queue_size},config_size={config_size},chardev=vu{number}"
        )
    return options
