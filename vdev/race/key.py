"""The digest by which a situation is recognised: what can matter from now on, and nothing else.

Left out are the entries of rings that were used up, buffers of ids that nobody holds, counters for reports, and the
versions of pages that the guest does not rely on: it writes those anew before it reads them.
"""

import marshal
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from host_migrator.migration import Stage

if TYPE_CHECKING:
    from vdev.race.world import World

__all__ = ["key_of"]

_PLAIN = 2
"""A version of marshal whose bytes hang on the values alone: from 3 on they tell who else holds them."""


def key_of(world: "World") -> bytes:
    """Return a digest that is equal where the same can happen from now on, and would be judged the same."""
    parts: Any = (
        _pages(world),
        _driver_and_ring(world),
        _device(world),
        _handler(world),
        _migrator(world),
        world.watch.digest_parts(),
        (world.now.write_count, world.guest.hint_count, world.now.vcpus_run, world.now.was_cancelled),
    )
    return blake2b(marshal.dumps(parts, _PLAIN), digest_size=16).digest()


def _pages(world: "World") -> tuple[object, ...]:
    guest, destination = world.guest, world.now.destination
    pages = []
    for page, owner in enumerate(guest.allocator.owners):
        wanted, is_used = guest.wanted[page], guest.can_free(page)
        is_right, has_arrived = is_used and guest.version(page) == wanted, is_used and destination[page] == wanted
        pages.append((int(owner), is_right, has_arrived))
    if world.migration.stage is Stage.NEW:
        # The log is cleared when it is started.
        return (pages,)
    return (pages, world.marks.marks.tobytes(), world.seen.tobytes())


def _driver_and_ring(world: "World") -> tuple[object, ...]:
    return (bytes(world.record), world.ring.digest_parts(world.handler.queue), world.now.is_interrupted)


def _device(world: "World") -> tuple[object, ...]:
    device, hinting = world.device, world.device.hinting
    requests = hinting.requests
    return (
        (int(hinting.state), hinting.command_id, hinting.command_id in world.watch.ids_seen),
        (len(hinting.kept), hinting.sink is None, hinting.polled, requests.buffer is None, requests.waiting_id),
        (device.config.tobytes(), int(device.status), int(device.interrupt_status)),
    )


def _handler(world: "World") -> tuple[object, ...]:
    handler, work = world.handler, world.work
    batches = [[hint.to_pages().tolist() for hint in batch] for batch in work.batches]
    return (handler.was_kicked, handler.in_exit, [str(step) for step in work.steps], batches, work.counts)


def _migrator(world: "World") -> tuple[object, ...]:
    migration = world.migration
    told = [value for value in vars(world.strategy).values() if isinstance(value, (bool, int))]
    in_flight = migration.in_flight.tolist()
    words = migration.to_send.words.tobytes()
    return (str(migration.stage), words, migration.cursor, migration.pass_count, in_flight, told)
