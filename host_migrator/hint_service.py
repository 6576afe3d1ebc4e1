"""Drives a handler of hints that does not finish inside a kick: piece by piece, or from a timer."""

from collections.abc import Callable

import trio

from host_migrator.hint_work import HintWork
from host_migrator.migration import Migration, Stage
from vdev.schedule import Schedule

__all__ = ["HintService"]

_TIMER_SECONDS = 0.01


class HintService(HintWork):
    """A handler whose pieces are done by `serve`, each in a turn of its own.

    `look` has the device look at its queue of hints, kicked or not. With a strategy that polls, a timer calls it while
    the guest runs. Pieces of a batch that was popped before the guest was stopped go on: nobody halts a handler
    half-way.
    """

    def __init__(
        self,
        migration: Migration,
        schedule: Schedule,
        *,
        look: Callable[[], bool],
        divided: bool,
        actor: str = "hint handler",
    ) -> None:
        super().__init__(migration, divided=divided)
        self._schedule = schedule
        self._look = look
        self._actor = actor
        self._wanted = trio.Event()

    def batch_taken(self) -> bool:
        """Go through the steps, or have `serve` do it."""
        is_through = super().batch_taken()
        if not is_through:
            self._wanted.set()
        return is_through

    async def serve(self) -> None:
        """Do what there is to do until cancelled, or the migration is over."""
        if self.migration.strategy.polled:
            await self._poll()
        else:
            await self._do_pieces()

    def finish(self, *, goes_on: bool) -> None:
        """The migration is over: have `serve` return. Where the guest goes on, the device is to keep no buffer."""
        if goes_on:
            self.abandon()
            if self.migration.strategy.polled:
                self._look()
        self._wanted.set()

    async def _poll(self) -> None:
        while self.migration.stage is not Stage.OVER:
            await self._schedule.sleep(self._actor, _TIMER_SECONDS)
            await self._schedule.turn(self._actor)
            has_more = self._is_served
            while has_more and self._look():
                await self._schedule.turn(self._actor)
                has_more = self._is_served

    @property
    def _is_served(self) -> bool:
        return self.migration.stage in (Stage.WAITING, Stage.RUNNING)

    async def _do_pieces(self) -> None:
        while self.migration.stage is not Stage.OVER:
            await self._wanted.wait()
            self._wanted = trio.Event()
            while self.steps:
                await self._schedule.turn(self._actor)
                if self.steps:
                    self.do_next()
