"""Guest RAM of which each access to a shared byte is told before it is done, word by word.

The real queues take their views from a `GuestMemory`. What is returned here for bytes that both sides touch only looks
like a memoryview or an array: each item that is read or stored is one access, of at most 8 bytes and in one piece only
as far as it is aligned. So a copy of 16 bytes is two loads, and what another processor does may fall in between.
"""

from typing import Any, Protocol

import construct
import numpy as np
import numpy.typing as npt

from spec.layout import dtype_of
from vdev.memory import GuestMemory, Region
from vdev.memory.backing import PrivateBacking
from vdev.race.rings.layout import Layout

__all__ = ["Accesses", "WatchedMemory"]

_ITEM_SIZES = {"B": 1, "H": 2, "I": 4, "Q": 8}
_WORD_SIZE = 8


class Accesses(Protocol):
    """Who is told of the accesses of one actor; offsets are those of the shared image."""

    def load(self, offset: int, size: int) -> int:
        """Return what a load of `size` bytes sees."""
        ...

    def store(self, offset: int, size: int, value: int) -> None:
        """Store `size` bytes."""
        ...

    def fence(self) -> None:
        """Order all earlier stores before all later loads."""
        ...


class WatchedMemory(GuestMemory):
    """RAM of one actor: its own bytes are its own, the shared ones are somewhere else and reached by `accesses`."""

    def __init__(self, layout: Layout) -> None:
        super().__init__([Region(0, PrivateBacking(layout.ram_size))])
        self.layout = layout
        self.accesses: Accesses
        self.own_bytes = self.regions[0].backing.data

    def full_fence(self) -> None:
        """Order all earlier stores before all later loads."""
        self.accesses.fence()

    def bytes_view(self, address: int, size: int) -> Any:
        """Return the live bytes of a range."""
        if self.layout.touches(address, size):
            self.locate(address, size)
            return _Bytes(self, address, size)
        return super().bytes_view(address, size)

    def view(self, address: int, layout: construct.Construct | np.dtype[Any], count: int | None = None) -> Any:
        """Return a live view of one layout, or of `count`."""
        dtype = layout if isinstance(layout, np.dtype) else dtype_of(layout)
        if self.layout.touches(address, dtype.itemsize * (1 if count is None else count)):
            return (
                _Record(self, address, dtype)
                if count is None
                else _Records(self, address, dtype, dtype.itemsize, count)
            )
        return super().view(address, dtype, count)

    def read(self, address: int, size: int) -> bytes:
        """Return a copy of `size` bytes."""
        return self.load_bytes(address, size) if self.layout.touches(address, size) else super().read(address, size)

    def gather(
        self, addresses: npt.NDArray[np.uint64], layout: construct.Construct | np.dtype[Any]
    ) -> npt.NDArray[Any]:
        """Return a copy of one layout at each of `addresses`."""
        dtype = layout if isinstance(layout, np.dtype) else dtype_of(layout)
        pieces = [self.read(address, dtype.itemsize) for address in addresses.tolist()]
        return np.frombuffer(b"".join(pieces), dtype).copy()

    # Words

    def load_word(self, address: int, size: int) -> int:
        """Load one aligned word."""
        offset = self.layout.offset_of(address)
        if offset >= 0:
            return self.accesses.load(offset, size)
        return int.from_bytes(self.own_bytes[address : address + size].tobytes(), "little")

    def store_word(self, address: int, size: int, value: int) -> None:
        """Store one aligned word. Raises ValueError for what it cannot hold."""
        if not 0 <= value < 1 << 8 * size:
            raise ValueError(f"{value} in {size} bytes")
        offset = self.layout.offset_of(address)
        if offset >= 0:
            self.accesses.store(offset, size, value)
        else:
            self.own_bytes[address : address + size] = np.frombuffer(value.to_bytes(size, "little"), np.uint8)

    def load_bytes(self, address: int, size: int) -> bytes:
        """Load a range, word by word."""
        return b"".join([self.load_word(at, length).to_bytes(length, "little") for at, length in _words(address, size)])

    def store_bytes(self, address: int, data: bytes) -> None:
        """Store a range, word by word."""
        for at, length in _words(address, len(data)):
            self.store_word(at, length, int.from_bytes(data[at - address : at - address + length], "little"))


def _words(address: int, size: int) -> list[tuple[int, int]]:
    """Return address and size of the aligned words that a copy of a range takes."""
    words = []
    while size:
        length = min(_WORD_SIZE, address & -address or _WORD_SIZE, 1 << size.bit_length() - 1)
        words.append((address, length))
        address += length
        size -= length
    return words


class _Bytes:
    """Some bytes as an array."""

    def __init__(self, memory: WatchedMemory, address: int, size: int) -> None:
        self._memory = memory
        self._address = address
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, key: slice) -> Any:
        first, end, _ = key.indices(self._size)
        return self._memory.bytes_view(self._address + first, end - first)

    @property
    def data(self) -> "_Items":
        return _Items(self._memory, self._address, self._size, 1)


class _Items:
    """Some bytes as a memoryview whose items have `item_size` bytes."""

    def __init__(self, memory: WatchedMemory, address: int, size: int, item_size: int) -> None:
        self._memory = memory
        self._address = address
        self._size = size
        self._item_size = item_size

    def cast(self, code: str) -> "_Items":
        return _Items(self._memory, self._address, self._size, _ITEM_SIZES[code])

    def __getitem__(self, key: int | slice) -> Any:
        if isinstance(key, slice):
            first, end, _ = key.indices(self._size // self._item_size)
            size = (end - first) * self._item_size
            return _Items(self._memory, self._address + first * self._item_size, size, self._item_size)
        return self._memory.load_word(self._at(key), self._item_size)

    def __setitem__(self, key: int, value: int) -> None:
        self._memory.store_word(self._at(key), self._item_size, value)

    def _at(self, index: int) -> int:
        if not 0 <= index < self._size // self._item_size:
            raise IndexError(f"item {index} of {self._size // self._item_size}")
        return self._address + index * self._item_size


class _Record:
    """One structure; its members are arrays."""

    def __init__(self, memory: WatchedMemory, address: int, dtype: np.dtype[Any]) -> None:
        self._memory = memory
        self._address = address
        self.dtype = dtype

    def __getitem__(self, name: str) -> "_Records":
        assert self.dtype.fields is not None
        member, offset = self.dtype.fields[name][:2]
        assert member.subdtype is not None
        base, (count,) = member.subdtype
        return _Records(self._memory, self._address + offset, base, base.itemsize, count)


class _Records:
    """An array of `count` items, `stride` bytes from each to the next."""

    def __init__(self, memory: WatchedMemory, address: int, dtype: np.dtype[Any], stride: int, count: int) -> None:
        self._memory = memory
        self._address = address
        self.dtype = dtype
        self._stride = stride
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            assert self.dtype.fields is not None
            member, offset = self.dtype.fields[key][:2]
            return _Records(self._memory, self._address + offset, member, self._stride, self._count)
        places = np.arange(self._count)[key]
        items = [self._memory.load_bytes(self._at(place), self.dtype.itemsize) for place in np.ravel(places).tolist()]
        return np.frombuffer(b"".join(items), self.dtype).reshape(places.shape)[()]

    def __setitem__(self, key: Any, value: Any) -> None:
        places = np.atleast_1d(np.arange(self._count)[key])
        values = np.broadcast_to(np.asarray(value).astype(self.dtype), places.shape)
        for place, item in zip(places.tolist(), values, strict=True):
            self._memory.store_bytes(self._at(place), item.tobytes())

    def _at(self, place: int) -> int:
        return self._address + place * self._stride
