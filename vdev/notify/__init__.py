"""Doorbells: how one side wakes the other, for queues (kick, call) and interrupts."""

from vdev.notify.busy_wait import BusyWait
from vdev.notify.doorbell import Doorbell
from vdev.notify.eventfd import EventfdDoorbell
from vdev.notify.interrupt_line import InterruptLine
from vdev.notify.ioeventfds import IoEventfdMatch, IoEventfds
from vdev.notify.loop import LoopDoorbell

__all__ = ["BusyWait", "Doorbell", "EventfdDoorbell", "InterruptLine", "IoEventfdMatch", "IoEventfds", "LoopDoorbell"]
