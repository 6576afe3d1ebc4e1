"""The pieces of which the work on hints is made."""

from enum import Enum

__all__ = ["Piece"]


class Piece(Enum):
    """One piece of the work on hints. Between two of them anybody else may act."""

    IDLE = "idle"
    """There is nothing to do about hints."""
    LOOK = "look"
    """Reads the device's configuration: the command id, or DONE, which releases every page that is held."""
    REAP = "reap"
    """Takes used buffers back; the buffer for requests goes into the queue again."""
    ANNOUNCE = "announce"
    """Posts the command id that is answered."""
    COLLECT = "collect"
    """Picks free pages: a batch of blocks for a list, all there are for a bitmap."""
    QUEUE = "queue"
    """Posts what was collected."""
    END = "end"
    """Posts STOP."""
    WAIT = "wait"
    """Asks for an interrupt when buffers were used: the queue is full, or the next answer waits for them."""
