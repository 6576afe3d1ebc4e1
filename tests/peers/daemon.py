"""A device that somebody else serves at a socket: started, waited for, and always ended."""

import contextlib
import subprocess
import time

# Seconds until a daemon must listen, and until it must be gone when it was asked to go.
START_LIMIT = 60
END_LIMIT = 30


@contextlib.contextmanager
def daemon(command, socket, log):
    """Run ``command`` until the body ends; it listens at ``socket`` when the body begins, and prints into ``log``."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + START_LIMIT
        while not socket.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{command[-1]} does not listen at {socket}:\n{log.read_text()}")
            time.sleep(0.01)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(END_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
