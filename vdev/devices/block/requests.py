"""From chains to requests: header, data and status byte, however the driver cut them ("Message Framing").

Nearly all drivers give header and status a descriptor each, and many requests so framed are read with a few numpy
steps. A batch in which one is framed in another way goes chain by chain.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from spec.block import REQUEST_HEADER, RequestType
from spec.layout import struct_of
from vdev.errors import DriverViolation
from vdev.memory import GuestMemory
from vdev.virtqueue.chain import Chain, ChainBatch, Segment

__all__ = ["Requests", "parse_requests"]

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
    the type needs, and no data in the other. `statuses` are one-byte views. `violation` is what ended the batch, if
    something did: the chain behind the last request is so malformed that no status could be written.
    """

    heads: npt.NDArray[np.int64]
    types: list[int] = field(default_factory=list)
    sectors: list[int] = field(default_factory=list)
    data: list[Views] = field(default_factory=list)
    data_sizes: list[int] = field(default_factory=list)
    fits: list[bool] = field(default_factory=list)
    statuses: list[memoryview] = field(default_factory=list)
    violation: DriverViolation | None = None


def parse_requests(memory: GuestMemory, batch: ChainBatch, queue: int) -> Requests:
    """Return the requests in the checked chains of `batch`, which came from queue number `queue`.

    Headers are copies; the data are not: what the driver changes meanwhile only concerns itself.
    """
    count = len(batch)
    counts = np.bincount(batch.segment_chain, minlength=count)
    ends = np.cumsum(counts)
    first, last = ends - counts, ends - 1
    sizes, writable = batch.sizes, batch.writable
    writable_counts = np.add.reduceat(writable, first, dtype=np.int64)
    plain = (sizes[first] == _HEADER_SIZE) & (sizes[last] == 1) & writable[last]
    plain &= (writable_counts == 1) | (writable_counts == counts - 1)
    if not plain.all():
        return _parse_one_by_one(memory, batch, queue)

    views = memory.byte_views(batch.addresses, sizes)
    data_sizes = (np.add.reduceat(sizes, first) - np.uint64(_HEADER_SIZE + 1)).tolist()
    gives = (writable_counts > 1).tolist()
    data: list[Views]
    if len(views) == 3 * count and (counts == 3).all():
        headers, data, statuses = views[::3], [[view] for view in views[1::3]], views[2::3]
    else:
        begins, lasts = first.tolist(), last.tolist()
        headers, statuses = [views[begin] for begin in begins], [views[end] for end in lasts]
        data = [views[begin + 1 : end] for begin, end in zip(begins, lasts, strict=True)]
    # Up to some hundreds, unpacking one by one is quicker than gathering them with numpy.
    types, _, sectors = map(list, zip(*map(_unpack_header, headers), strict=True))
    fits = [
        (kind in _GIVING) == is_giving or not size
        for kind, is_giving, size in zip(types, gives, data_sizes, strict=True)
    ]
    return Requests(batch.heads, types, sectors, data, data_sizes, fits, statuses)


def _parse_one_by_one(memory: GuestMemory, batch: ChainBatch, queue: int) -> Requests:
    requests = Requests(batch.heads)
    for position, chain in enumerate(batch):
        refusal = _refusal(chain)
        if refusal is not None:
            requests.heads = batch.heads[:position]
            requests.violation = DriverViolation(_CLAUSE, refusal, queue=queue, descriptor=chain.head)
            break
        header, to_write = _split(chain.readable, _HEADER_SIZE)
        to_read, status = _split(chain.writable, chain.writable_size - 1)
        kind, _, sector = _unpack_header(b"".join([memory.read(*segment) for segment in header]))
        wanted, unwanted = (to_read, to_write) if kind in _GIVING else (to_write, to_read)
        requests.types.append(kind)
        requests.sectors.append(sector)
        requests.data.append([memory.bytes_view(*segment).data for segment in wanted])
        requests.data_sizes.append(sum(segment.size for segment in wanted))
        requests.fits.append(not unwanted)
        requests.statuses.append(memory.bytes_view(*status[0]).data)
    return requests


def _refusal(chain: Chain) -> str | None:
    if not chain.writable_size:
        return "a request without room for its status"
    if chain.readable_size < _HEADER_SIZE:
        return f"a request whose header has {chain.readable_size} bytes, not {_HEADER_SIZE}"
    return None


def _split(segments: Sequence[Segment], size: int) -> tuple[list[Segment], list[Segment]]:
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
    return front, rest
