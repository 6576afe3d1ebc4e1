"""Checks of the dirty log over vhost-user: which pages are marked, and when none is."""

from spec.vhost_user import LOG_ALL, LOG_PAGE_SIZE, PROTOCOL_FEATURES, ProtocolFeature
from vdev.check.bench.bench import Bench
from vdev.check.bench.dirty_log import DirtyLog
from vdev.check.bench.ring import Ring
from vdev.check.device.vhost_steps import VHOST
from vdev.check.registry import BOTH, RingFormat, check
from vdev.check.verdict import TargetHung

_S = "vhost-user.back-end."
_LOG = [ProtocolFeature.LOG_SHMFD]
_OFFSET = LOG_PAGE_SIZE
"""The log begins a page into its file."""


def _log(bench: Bench) -> DirtyLog:
    bench.front_end.need(ProtocolFeature.LOG_SHMFD)
    if not bench.offers(LOG_ALL):
        bench.not_applicable("the back end does not offer LOG_ALL")
    return bench.front_end.dirty_log(_OFFSET)


def _switch(bench: Bench, is_on: bool) -> None:
    bench.done(f"switch logging {'on' if is_on else 'off'}")
    mask = bench.features | bench.front_end.features & 1 << PROTOCOL_FEATURES
    result = bench.front_end.set_features(mask | is_on << LOG_ALL)
    bench.expect(
        result is True,
        _S + "log.6",
        expected="SET_FEATURES obeyed that switches logging",
        observed="it was refused" if result is False else "the connection was closed",
    )


def _written_pages(bench: Bench, ring: Ring) -> set[int]:
    """Have a request carried out, and return the pages of its device-writable parts."""
    request = bench.traffic.plain(bench)
    if not request.writable_size:
        bench.not_applicable("plain requests of this type have nothing for the device to write")
    posted = ring.post(request)
    ring.publish()
    ring.kick()
    used = ring.wait_used()
    left = used.length
    pages = set()
    for address, size, is_writable in posted.segments:
        if is_writable and left > 0:
            count = min(size, left)
            pages |= set(range(address // LOG_PAGE_SIZE, (address + count - 1) // LOG_PAGE_SIZE + 1))
            left -= count
    return pages


def _expect_marked(log: DirtyLog, bench: Bench, pages: set[int], statement: str, what: str) -> None:
    missing = sorted(pages - log.pages())
    bench.expect(
        not missing,
        statement,
        expected=f"the pages {sorted(pages)} marked, to which {what} was written",
        observed=f"not marked: {missing}; marked: {sorted(log.pages())[:16]}",
    )


@check("log.base-is-answered", covers=[_S + "log.1"], carriers=VHOST, protocol_features=_LOG)
def base_is_answered(bench: Bench) -> None:
    """SET_LOG_BASE gets an answer although nobody asks for an acknowledgement."""
    bench.start(drive=False)
    try:
        _log(bench)
    except TargetHung as hung:
        bench.fail(_S + "log.1", expected="an answer to SET_LOG_BASE", observed=str(hung))


@check(
    "log.written-buffers-are-marked",
    covers=[_S + "log.2", _S + "log.5", _S + "log.6"],
    formats=BOTH,
    carriers=VHOST,
    protocol_features=_LOG,
)
def written_buffers_are_marked(bench: Bench) -> None:
    """Pages of device-writable buffers are marked from when logging is switched on, while the ring is processed."""
    bench.start()
    log = _log(bench)
    ring = bench.ring()
    bench.exchange(ring)
    _switch(bench, True)
    for _ in range(3):
        pages = _written_pages(bench, ring)
        ring.resume(ring.stop() or 0)
        _expect_marked(log, bench, pages, _S + "log.2", "a buffer")
    outside = log.content()[:_OFFSET]
    bench.expect(
        not any(outside), _S + "log.5", expected="nothing stored before the log's offset", observed="bytes are stored"
    )


@check("log.nothing-while-off", covers=[_S + "log.4"], formats=BOTH, carriers=VHOST, protocol_features=_LOG)
def nothing_while_off(bench: Bench) -> None:
    """No page is marked before logging is switched on, nor after it was switched off."""
    bench.start()
    log = _log(bench)
    ring = bench.ring()
    for when in ("before LOG_ALL was set", "after LOG_ALL was taken away"):
        bench.exchange(ring)
        base = ring.stop() or 0
        marked = sorted(log.pages())
        bench.expect(not marked, _S + "log.4", expected=f"no page marked {when}", observed=f"marked: {marked[:16]}")
        ring.resume(base)
        _switch(bench, True)
        bench.exchange(ring)
        _switch(bench, False)
        base = ring.stop() or 0
        log.clear()
        ring.resume(base)


@check(
    "log.used-ring-is-marked",
    covers=[_S + "log.3"],
    formats=(RingFormat.SPLIT,),
    carriers=VHOST,
    protocol_features=_LOG,
)
def used_ring_is_marked(bench: Bench) -> None:
    """Writes to a used ring that is to be logged are marked where its log address says, its own or another."""
    for shift in (0, 16 * LOG_PAGE_SIZE):
        bench.start(drive=False)
        log = _log(bench)
        ring = bench.ring()
        address = ring.areas.device + shift
        bench.front_end.set_addresses(ring.number, ring.areas, log=address)
        _switch(bench, True)
        bench.drive()
        bench.exchange(ring)
        ring.stop()
        pages = {address // LOG_PAGE_SIZE, (address + 11) // LOG_PAGE_SIZE}
        _expect_marked(log, bench, pages, _S + "log.3", "the used ring's beginning")
        bench.reconnect()
