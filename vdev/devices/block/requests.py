"""From chains to requests: header, data and status byte, however the driver cut them ("Message Framing").

Nearly all drivers give header and status a descriptor each, and the data of most requests are one more. A batch of
requests so framed is read as a whole; one in which a request is framed in another way goes chain by chain. (At the
usual depths lists are quicker here than numpy.)
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from spec.block import REQUEST_HEADER, RequestType
from spec.layout import struct_of
from vdev.errors import DriverViolation
from vdev.memory import GuestMemory
from vdev.virtqueue.chain import Chain, ChainBatch, Segment

__all__ = ["Requests", "Views", "parse_chains", "parse_requests"]

_CLAUSE = "Block Device / Device Operation"

_HEADER_SIZE: int = REQUEST_HEADER.sizeof()
_unpack_header = struct_of(REQUEST_HEADER).unpack_from

# The types whose data the device writes.
_GIVING = {int(RequestType.IN), int(RequestType.GET_ID), int(RequestType.GET_LIFETIME)}

Views = Sequence[memoryview]


@dataclass(slots=True)
class Requests:
    """Requests as columns of one length: one entry each, in the driver's order.

    `data` are live views of guest RAM, `data_sizes` their bytes, and `fits` says whether they lie in the direction that
    the type needs, and no data in the other. `statuses` are one-byte views. `writable` are addresses and sizes of all
    that the device may have stored to, None where nobody asks for marks. `violation` is what ended the batch, if
    something did: the chain behind the last request is so malformed that no status could be written.
    """

    heads: list[int] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    sectors: list[int] = field(default_factory=list)
    data: list[Views] = field(default_factory=list)
    data_sizes: list[int] = field(default_factory=list)
    fits: list[bool] = field(default_factory=list)
    statuses: list[memoryview] = field(default_factory=list)
    writable: tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]] | None = None
    violation: DriverViolation | None = None


def parse_requests(memory: GuestMemory, batch: ChainBatch, queue: int) -> Requests:
    """Return the requests in the checked chains of `batch`, which came from queue number `queue`.

    Headers are copies; the data are not: what the driver changes meanwhile only concerns itself.
    """
    count = len(batch)
    counts: list[int] = np.bincount(batch.segment_chain, minlength=count).tolist()
    sizes, writable = batch.sizes.tolist(), batch.writable.tolist()
    if counts == [3] * count and _are_usual(sizes, writable, count):
        views = memory.byte_views(batch.addresses, batch.sizes)
        data: list[Views] = [[view] for view in views[1::3]]
        return _requests(memory, batch, views[::3], data, sizes[1::3], writable[1::3], views[2::3])
    begins = list(accumulate(counts, initial=0))
    pieces = list(pairwise(begins))
    if not all(_is_plain(sizes[begin:end], writable[begin:end]) for begin, end in pieces):
        return parse_chains(memory, list(batch), queue)
    views = memory.byte_views(batch.addresses, batch.sizes)
    return _requests(
        memory,
        batch,
        [views[begin] for begin, _ in pieces],
        [views[begin + 1 : end - 1] for begin, end in pieces],
        [sum(sizes[begin + 1 : end - 1]) for begin, end in pieces],
        [end - begin > 2 and writable[begin + 1] for begin, end in pieces],
        [views[end - 1] for _, end in pieces],
    )


def _are_usual(sizes: list[int], writable: list[bool], count: int) -> bool:
    """Say whether `count` chains of three segments are all header, data and status."""
    return (
        sizes[::3] == [_HEADER_SIZE] * count
        and sizes[2::3] == [1] * count
        and all(writable[2::3])
        and not any(writable[::3])
    )


def _is_plain(sizes: list[int], writable: list[bool]) -> bool:
    """Say whether a chain has header and status in segments of their own, and between them data of one direction."""
    return (
        len(sizes) > 1
        and sizes[0] == _HEADER_SIZE
        and sizes[-1] == 1
        and sum(writable) in (1, len(sizes) - 1)
        and writable[-1]
        and not writable[0]
    )


def _requests(
    memory: GuestMemory,
    batch: ChainBatch,
    headers: list[memoryview],
    data: list[Views],
    data_sizes: list[int],
    gives: list[bool],
    statuses: list[memoryview],
) -> Requests:
    """`gives` says of each request whether its data are device-writable."""
    types, _, sectors = map(list, zip(*map(_unpack_header, headers), strict=True))
    fits = [
        (kind in _GIVING) == is_giving or not size
        for kind, is_giving, size in zip(types, gives, data_sizes, strict=True)
    ]
    is_asked = memory.page_marks is not None
    stored = (batch.addresses[batch.writable], batch.sizes[batch.writable]) if is_asked else None
    return Requests(batch.heads.tolist(), types, sectors, data, data_sizes, fits, statuses, stored)


def parse_chains(memory: GuestMemory, chains: Sequence[Chain], queue: int) -> Requests:
    """Return what `parse_requests` returns, of few chains or of any framing, one by one."""
    requests = Requests()
    stored: list[Segment] = []
    for chain in chains:
        readable, writable = chain.readable, chain.writable
        is_plain = readable and readable[0].size == _HEADER_SIZE and writable and writable[-1].size == 1
        if is_plain and (len(readable) == 1 or len(writable) == 1):
            header, to_write, to_read, status = (
                memory.byte_view(*readable[0]),
                readable[1:],
                writable[:-1],
                writable[-1],
            )
        else:
            if (refusal := _refusal(chain)) is not None:
                requests.violation = DriverViolation(_CLAUSE, refusal, queue=queue, descriptor=chain.head)
                break
            front, to_write = _split(readable, _HEADER_SIZE)
            to_read, (status,) = _split(writable, chain.writable_size - 1)
            header = memoryview(b"".join([memory.read(*segment) for segment in front]))
        kind, _, sector = _unpack_header(header)
        wanted, unwanted = (to_read, to_write) if kind in _GIVING else (to_write, to_read)
        requests.heads.append(chain.head)
        requests.types.append(kind)
        requests.sectors.append(sector)
        requests.data.append([memory.byte_view(*segment) for segment in wanted])
        requests.data_sizes.append(sum([segment.size for segment in wanted]))
        requests.fits.append(not any(segment.size for segment in unwanted))
        requests.statuses.append(memory.byte_view(*status))
        stored += writable
    if memory.page_marks is not None and stored:
        addresses, sizes = zip(*stored, strict=True)
        requests.writable = np.array(addresses, np.uint64), np.array(sizes, np.uint64)
    return requests


def _refusal(chain: Chain) -> str | None:
    if not chain.writable_size:
        return "a request without room for its status"
    if chain.readable_size < _HEADER_SIZE:
        return f"a request whose header has {chain.readable_size} bytes, not {_HEADER_SIZE}"
    return None


def _split(segments: Sequence[Segment], size: int) -> tuple[tuple[Segment, ...], tuple[Segment, ...]]:
    """Return the first `size` bytes of `segments`, and the rest, without what is empty."""
    front: list[Segment] = []
    rest: list[Segment] = []
    for address, length in segments:
        taken = min(length, size)
        if taken:
            front.append(Segment(address, taken))
        if length > taken:
            rest.append(Segment(address + taken, length - taken))
        size -= taken
    return tuple(front), tuple(rest)
