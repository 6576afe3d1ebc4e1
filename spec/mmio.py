"""The virtio-mmio version 2 register layout (virtio 1.4, "Virtio Over MMIO")."""

from enum import IntEnum, IntFlag

from construct import Int16ul, Int32ul, Padding, Struct

__all__ = [
    "ABSENT_SHARED_MEMORY",
    "CONFIG_OFFSET",
    "DEVICE_WINDOW_SIZE",
    "MAGIC_VALUE",
    "NOTIFICATION",
    "QUEUE_INDEX_MASK",
    "READABLE",
    "REGISTERS",
    "VENDOR_ID",
    "VERSION",
    "WRITABLE",
    "Interrupt",
    "Register",
]

MAGIC_VALUE = 0x74726976
VERSION = 2
VENDOR_ID = 0x56445645
"""Any value is legal; this one reads "EVDV" in memory."""

CONFIG_OFFSET = 0x100
DEVICE_WINDOW_SIZE = 0x200
"""Bytes of guest-physical address space one device takes on this project's bus."""

ABSENT_SHARED_MEMORY = 0xFFFF_FFFF
"""What each half of the length and base of a shared-memory region reads as when the region does not exist."""


class Register(IntEnum):
    """Offsets from a device's base, bytes."""

    MAGIC_VALUE = 0x000
    VERSION = 0x004
    DEVICE_ID = 0x008
    VENDOR_ID = 0x00C
    DEVICE_FEATURES = 0x010
    DEVICE_FEATURES_SEL = 0x014
    DRIVER_FEATURES = 0x020
    DRIVER_FEATURES_SEL = 0x024
    QUEUE_SEL = 0x030
    QUEUE_SIZE_MAX = 0x034
    QUEUE_SIZE = 0x038
    QUEUE_READY = 0x044
    QUEUE_NOTIFY = 0x050
    INTERRUPT_STATUS = 0x060
    INTERRUPT_ACK = 0x064
    STATUS = 0x070
    QUEUE_DESC_LOW = 0x080
    QUEUE_DESC_HIGH = 0x084
    QUEUE_DRIVER_LOW = 0x090
    QUEUE_DRIVER_HIGH = 0x094
    QUEUE_DEVICE_LOW = 0x0A0
    QUEUE_DEVICE_HIGH = 0x0A4
    SHM_SEL = 0x0AC
    SHM_LEN_LOW = 0x0B0
    SHM_LEN_HIGH = 0x0B4
    SHM_BASE_LOW = 0x0B8
    SHM_BASE_HIGH = 0x0BC
    QUEUE_RESET = 0x0C0
    CONFIG_GENERATION = 0x0FC


READABLE = frozenset(
    {
        Register.MAGIC_VALUE,
        Register.VERSION,
        Register.DEVICE_ID,
        Register.VENDOR_ID,
        Register.DEVICE_FEATURES,
        Register.QUEUE_SIZE_MAX,
        Register.QUEUE_READY,
        Register.INTERRUPT_STATUS,
        Register.STATUS,
        Register.SHM_LEN_LOW,
        Register.SHM_LEN_HIGH,
        Register.SHM_BASE_LOW,
        Register.SHM_BASE_HIGH,
        Register.QUEUE_RESET,
        Register.CONFIG_GENERATION,
    }
)
WRITABLE = frozenset(
    {
        Register.DEVICE_FEATURES_SEL,
        Register.DRIVER_FEATURES,
        Register.DRIVER_FEATURES_SEL,
        Register.QUEUE_SEL,
        Register.QUEUE_SIZE,
        Register.QUEUE_READY,
        Register.QUEUE_NOTIFY,
        Register.INTERRUPT_ACK,
        Register.STATUS,
        Register.QUEUE_DESC_LOW,
        Register.QUEUE_DESC_HIGH,
        Register.QUEUE_DRIVER_LOW,
        Register.QUEUE_DRIVER_HIGH,
        Register.QUEUE_DEVICE_LOW,
        Register.QUEUE_DEVICE_HIGH,
        Register.SHM_SEL,
        Register.QUEUE_RESET,
    }
)


NOTIFICATION = "notification" / Struct("vq_index" / Int16ul, "next" / Int16ul)
"""QueueNotify with NOTIFICATION_DATA negotiated: the queue, and where the driver will make the next buffer available.

`next` has next_off in bits 0 to 14 and next_wrap in bit 15: a position in a packed ring, the 16-bit available index of
a split one. Without NOTIFICATION_DATA all 32 bits are the queue's index.
"""

QUEUE_INDEX_MASK = 0xFFFF
"""The bits of QueueNotify that `vq_index` of NOTIFICATION takes."""


class Interrupt(IntFlag):
    """Bits of InterruptStatus and InterruptACK."""

    USED_BUFFER = 1
    CONFIGURATION_CHANGE = 2


def _register_block() -> Struct:
    members = []
    offset = 0
    for register in Register:
        if register > offset:
            members.append(Padding(register - offset))
        members.append(register.name.lower() / Int32ul)
        offset = register + 4
    return Struct(*members)


REGISTERS = "registers" / _register_block()
"""The control registers as one block of 0x100 bytes, for dumps and captures; access goes register by register."""
