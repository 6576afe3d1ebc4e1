"""What landed in QEMU and Linux: each sync begins a new command id, and only hints under the newest id count."""

from host_migrator.strategies.interface import HintingDevice, HintSink

__all__ = ["CommandId"]


class CommandId:
    """Stop, sync, ask again under a new id; when the guest is stopped, done.

    The device drops a hint whose id is not the one it asked under last, so no hint that the guest collected before a
    sync is applied after it. DONE reaches the guest exactly once for each migration, however that ends.

    `head_start` is the most seconds the bulk stage waits for the first hints. They come in an order of their own while
    pages are sent from the lowest address on, so whatever is sent before its hint comes is wasted; waiting costs
    at most this long once, and ends when hints dry up.
    """

    name = "command-id"

    def __init__(self, hinting: HintingDevice, head_start: float = 0.1) -> None:
        self._hinting = hinting
        self._asked = False
        self._head_start = head_start
        self._answer_expected = False

    @property
    def head_start(self) -> float:
        """The most seconds to wait for the first hints; none when the guest cannot be asked."""
        return self._head_start if self._answer_expected else 0.0

    def set_up(self, sink: HintSink) -> None:
        """Take the device's hints."""
        self._hinting.sink = sink
        self._asked = True

    def before_sync(self) -> None:
        """No hint is taken until the guest has echoed a new id."""
        self._hinting.stop()

    def after_sync(self, running: bool) -> None:
        """Ask again, or release what the guest holds when nothing more can be skipped."""
        if running:
            self._answer_expected = self._hinting.request() is not None
        else:
            self._finish()

    def complete(self) -> None:
        """All was said when the guest was stopped."""

    def clean_up(self) -> None:
        """Release what the guest holds, unless that was done."""
        self._finish()

    def _finish(self) -> None:
        if self._asked:
            self._asked = False
            self._hinting.sink = None
            self._hinting.done()
