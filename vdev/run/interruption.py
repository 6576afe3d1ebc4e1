"""How a command that runs until interrupted is interrupted."""

import signal

import trio

__all__ = ["cancel_on_signal"]


async def cancel_on_signal(scope: trio.CancelScope) -> None:
    """Cancel `scope` when SIGINT or SIGTERM comes, instead of what they do otherwise; never returns by itself."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
