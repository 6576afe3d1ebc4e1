"""Answering the host's requests for memory statistics: one buffer, which the device returns to ask."""

from collections.abc import Callable, Mapping

from guest_agent.drivers.balloon.area import BalloonArea
from guest_agent.transport import Transport
from guest_agent.virtqueue.queue import DriverQueue

__all__ = ["StatisticsAnswerer", "StatisticsSource"]

StatisticsSource = Callable[[], Mapping[int, int]]
"""Gives tag -> value, always of the same tags ("Memory Statistics Tags")."""


class StatisticsAnswerer:
    """The statistics queue."""

    def __init__(self, area: BalloonArea, queue: DriverQueue, registers: Transport, source: StatisticsSource) -> None:
        self._area = area
        self._queue = queue
        self._registers = registers
        self._source = source

    def add_buffer(self) -> None:
        """Fill the buffer and place it; the device sees it once it is published."""
        size = self._area.store_statistics(dict(self._source()))
        self._queue.add([(self._area.buffer_address("statistics"), size)], [], 0)

    def publish(self) -> None:
        """Show the device what was placed."""
        self._registers.publish(self._queue)

    def work(self) -> bool:
        """Answer if the device asked. One answer waits for the next request, so there is never more to do at once."""
        if self.collect():
            self.add_buffer()
            self.publish()
        return False

    def collect(self) -> bool:
        """Take the buffer back if the device returned it; return whether it did."""
        return self._queue.collect() is not None

    def begin_again(self) -> None:
        """Fill the buffer for an empty queue."""
        self.add_buffer()
        self.publish()
