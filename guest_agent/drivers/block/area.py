"""What the block driver keeps in guest RAM: its state, and for each queue its requests and its ring."""

from construct import Int32ul, Int64ul, Struct

from guest_agent.drivers.area import REASON, DriverArea
from guest_agent.drivers.block.slots import PAYLOAD_SIZE, RequestSlots
from guest_agent.virtqueue.factory import driver_area_size
from spec.block import DATA_RANGE, BlockFeature
from vdev.memory import PAGE_SIZE, GuestMemory

__all__ = ["INDIRECT_CAPACITY", "SEGMENT_LIMIT", "STATE", "BlockArea"]

_NO_LIMIT = 0xFFFF_FFFF
_SIZE_LIMIT = 1 << 30
"""Bytes in a segment where the device names no limit."""

SEGMENT_LIMIT = 32
"""The most segments of data in a request of this driver, also where the device allows more."""

INDIRECT_CAPACITY = SEGMENT_LIMIT + 2
"""Header, data and status."""

STATE = "block_driver_state" / Struct(
    "magic" / Int32ul,
    "queue_size" / Int32ul,  # the most descriptors of a queue that the area has room for
    "queue_count" / Int32ul,  # queues in use
    "config_pending" / Int32ul,  # 1: the device said that its configuration changed
    "features" / Int64ul,  # negotiated
    "capacity" / Int64ul,  # sectors
    "size_max" / Int32ul,  # bytes of a segment
    "seg_max" / Int32ul,  # segments of a request
    "discard_sectors_max" / Int32ul,
    "discard_ranges_max" / Int32ul,
    "zeroes_sectors_max" / Int32ul,
    "zeroes_ranges_max" / Int32ul,
    REASON,
)


class BlockArea(DriverArea):
    """The driver's area at the page-aligned guest-physical `address`, for queues of up to `queue_size` descriptors."""

    name = "block"
    layout = STATE
    magic = int.from_bytes(b"VBLK", "little")

    def __init__(self, memory: GuestMemory, address: int, queue_size: int) -> None:
        super().__init__(memory, address)
        self._slots_size = RequestSlots.area_size(queue_size)
        self._queue_size = self._slots_size + driver_area_size(queue_size, INDIRECT_CAPACITY)

    @staticmethod
    def size(queue_size: int, queue_count: int) -> int:
        """Bytes of the whole area, a multiple of the page size."""
        ring_size = driver_area_size(queue_size, INDIRECT_CAPACITY)
        return PAGE_SIZE + queue_count * (RequestSlots.area_size(queue_size) + ring_size)

    @classmethod
    def create(cls, memory: GuestMemory, address: int, queue_size: int) -> "BlockArea":
        """Clear the state; slots and rings are made by their own classes."""
        memory.write(address, bytes(PAGE_SIZE))
        area = cls(memory, address, queue_size)
        area["queue_size"] = queue_size
        area["magic"] = cls.magic
        return area

    @classmethod
    def find(cls, memory: GuestMemory, address: int) -> "BlockArea":
        """Return the area that `create` made at `address`.

        Raises NoQueueHere.
        """
        cls.require(memory, address)
        return cls(memory, address, int(memory.view(address, STATE)["queue_size"]))

    def slots_address(self, queue: int) -> int:
        """Return where the request slots of a queue begin."""
        return self.address + PAGE_SIZE + queue * self._queue_size

    def ring_address(self, queue: int) -> int:
        """Return where the area of a queue's ring begins."""
        return self.slots_address(queue) + self._slots_size

    def note_limits(self, config: dict[str, int], queue_size: int) -> None:
        """Note what the device's configuration allows under the noted features, with queues of `queue_size`."""
        features = self["features"]

        def limit(feature: BlockFeature, field: str, otherwise: int) -> int:
            return (config[field] or otherwise) if features >> feature & 1 else otherwise

        # An indirect table has no more entries than the queue, either.
        self["seg_max"] = min(limit(BlockFeature.SEG_MAX, "seg_max", 1), SEGMENT_LIMIT, queue_size - 2)
        self["size_max"] = min(limit(BlockFeature.SIZE_MAX, "size_max", _SIZE_LIMIT), _SIZE_LIMIT)
        self["capacity"] = config["capacity"]
        for name, feature, prefix in (
            ("discard", BlockFeature.DISCARD, "max_discard"),
            ("zeroes", BlockFeature.WRITE_ZEROES, "max_write_zeroes"),
        ):
            self[f"{name}_sectors_max"] = limit(feature, f"{prefix}_sectors", _NO_LIMIT)
            self[f"{name}_ranges_max"] = min(limit(feature, f"{prefix}_seg", 1), PAYLOAD_SIZE // DATA_RANGE.sizeof())
