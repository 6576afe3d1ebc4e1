"""The baseline: the guest is not asked."""

from host_migrator.strategies.interface import HintSink

__all__ = ["NoHints"]


class NoHints:
    """Sends every page."""

    name = "none"
    head_start = 0.0

    def set_up(self, sink: HintSink) -> None:
        """No hint is wanted."""

    def before_sync(self) -> None:
        """No hint could race with the sync."""

    def after_sync(self, running: bool) -> None:
        """Nobody is asked."""

    def complete(self) -> None:
        """The guest holds nothing for us."""

    def clean_up(self) -> None:
        """The guest holds nothing for us."""
