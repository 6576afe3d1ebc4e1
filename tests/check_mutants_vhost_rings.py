"""Mutants for the checks of rings over vhost-user: states, bases, descriptors, log, and what is in flight."""

import inspect
import os

from check_mutants import changed, replaced
from check_vhost_faults import SPLIT, mutant, put_instead, wrapped

import vdev.vhost_user.configuration
import vdev.vhost_user.server
import vdev.vhost_user.session
from vdev.check.registry import RingFormat
from vdev.device import Device
from vdev.vhost_user.attachment import Attachment
from vdev.vhost_user.bring_up import BringUp
from vdev.vhost_user.dirty_bitmap import DirtyBitmap
from vdev.vhost_user.inflight import Inflight
from vdev.vhost_user.log import WriteLog
from vdev.vhost_user.session import Session
from vdev.vhost_user.split_inflight import SplitInflightQueue
from vdev.vhost_user.vring import Vring
from vdev.vhost_user.vrings import Vrings


def _call_while_suspended(get):
    def handle(self, *arguments):
        for ring in self.rings.all:
            if not ring.is_started and ring.chain_count:
                ring.call_driver()
        return get(self, *arguments)

    return handle


def _announce_while_suspended(get):
    def handle(self, *arguments):
        if not self.rings.is_any_started and self.channel.is_open:
            self.channel.send_config_change()
        return get(self, *arguments)

    return handle


def _drop_one(attach):
    def attach_and_drop(self, ring, set_up):
        queue = attach(self, ring, set_up)
        if queue is not None and ring.chain_count:
            queue.pop()
        return queue

    return attach_and_drop


def _deaf_at_a_restart(set_kick):
    def handle(self, payload, message):
        if self.named(payload.value & 0xFF).chain_count and message.fds:
            os.close(message.fds[0])
            message.fds[0] = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        return set_kick(self, payload, message)

    return handle


def _keep_first_call(set_call):
    def handle(self, payload, message):
        if self.named(payload.value & 0xFF).is_started and message.fds:
            return None
        return set_call(self, payload, message)

    return handle


def _err_at_stop(stop):
    def stop_with_error(self, ring):
        if ring.err is not None and ring.is_started:
            ring.err.signal()
        stop(self, ring)

    return stop_with_error


def _needs_call(call):
    def call_driver(self):
        if self.call is None:
            raise RuntimeError("no call descriptor")
        call(self)

    return call_driver


def _never_poll(patch):
    patch.setattr(vdev.vhost_user.server, "_POLL_INTERVAL", 1000)
    patch.setattr(vdev.vhost_user.server, "BusyWait", lambda: None)


def _wait_for_a_kick(patch):
    """No look when a ring is started, neither from the server nor from the device."""
    server = vdev.vhost_user.server
    source = inspect.getsource(server._serve_ring)
    assert source.count("await _handle(device, ring)\n") == 1
    names = {}
    exec(source.replace("await _handle(device, ring)\n", "pass\n"), vars(server), names)
    patch.setattr(server, "_serve_ring", names["_serve_ring"])
    patch.setattr(Device, "_look_at_queues", lambda _: None)


def _still_in_flight(push):
    def push_and_leave(self, heads, sizes):
        push(self, heads, sizes)
        self._inflight[heads] = 1

    return push_and_leave


def _leave_in_flight(patch):
    for name in ("push", "push_batch"):
        patch.setattr(SplitInflightQueue, name, _still_in_flight(SplitInflightQueue.__dict__[name]))


MUTANTS = [
    mutant(
        "starts by enabling",
        {"rings.stopped-at-first"},
        changed(
            Attachment,
            "settle",
            (
                "is_wanted = ring.is_started and",
                "is_wanted = (ring.is_started or ring.kick_count == ring.chain_count == 0) and",
            ),
        ),
    ),
    mutant(
        "is deaf at a restart",
        {"rings.started-and-enabled"},
        wrapped(Vrings, "set_kick", _deaf_at_a_restart),
        also={"rings.start-again"},
        formats=SPLIT,
    ),
    mutant(
        "forgets what is enabled before a start",
        {"rings.enabled-and-started"},
        changed(
            Vrings,
            "set_enabled",
            ("self.enable(ring, bool(payload.num))", "self.enable(ring, bool(payload.num) and ring.is_started)"),
        ),
        formats=SPLIT,
    ),
    mutant(
        "waits for a kick", {"rings.what-is-there-is-done-without-a-kick"}, replaced(_wait_for_a_kick), formats=SPLIT
    ),
    mutant(
        "calls while it is suspended",
        {"rings.get-base-stops"},
        wrapped(Session, "_get_features", _call_while_suspended),
    ),
    mutant(
        "announces while it is suspended",
        {"rings.no-message-while-suspended"},
        wrapped(Session, "_get_features", _announce_while_suspended),
    ),
    mutant(
        "loses one at a start",
        {"rings.start-again"},
        wrapped(BringUp, "attach", _drop_one),
        also={"rings.disabled-and-enabled-again"},
        formats=SPLIT,
    ),
    mutant(
        "takes disabled for enabled",
        {"rings.disabled-and-enabled-again", "rings.disabled-has-no-effect"},
        changed(Attachment, "settle", ("ring.is_started and ring.is_enabled and", "ring.is_started and")),
        also={"session.another-begins-anew"},
    ),
    mutant(
        "does not poll",
        {"events.polled-without-a-descriptor"},
        replaced(_never_poll),
        formats=SPLIT,
    ),
    mutant(
        "never calls",
        {"events.used-buffers-are-called"},
        put_instead(Vring, "call_driver", lambda self: None),
        also={"events.another-call-descriptor"},
        formats=SPLIT,
        only=("events.*",),
    ),
    mutant(
        "dies without a call descriptor",
        {"events.works-without-calls"},
        wrapped(Vring, "call_driver", _needs_call),
    ),
    mutant(
        "keeps the first call descriptor",
        {"events.another-call-descriptor"},
        wrapped(Vrings, "set_call", _keep_first_call),
        formats=SPLIT,
    ),
    mutant("signals an error at a stop", {"events.no-error-without-one"}, wrapped(Vrings, "stop", _err_at_stop)),
    mutant(
        "keeps errors to itself",
        {"events.an-error-is-signalled"},
        put_instead(Vring, "fail", lambda self, error: setattr(self, "last_error", error)),
    ),
    mutant(
        "counts modulo the size",
        {"bases.split-counts-what-was-taken", "bases.nothing-is-lost-or-done-twice"},
        changed(
            Vrings,
            "get_base",
            (
                '"num": ring.base or 0',
                '"num": (ring.base or 0) % ring.size if (ring.base or 0) < 0x8000 else ring.base',
            ),
        ),
        formats=SPLIT,
    ),
    mutant(
        "tells another used lap",
        {"bases.packed-has-both-places"},
        changed(
            Vrings,
            "get_base",
            ('"num": ring.base or 0', '"num": (ring.base or 0) ^ (1 << 31 if (ring.base or 0) >> 16 == 5 else 0)'),
        ),
        formats=(RingFormat.PACKED,),
    ),
    mutant(
        "begins modulo 32768",
        {"bases.split-goes-on-anywhere"},
        changed(
            BringUp,
            "attach",
            (
                "max(fresh) if base is None else base",
                "max(fresh) if base is None else base & 0x7FFF if base < 0x10000 and not self._is_packed else base",
            ),
        ),
    ),
    mutant(
        "begins in the first lap",
        {"bases.packed-goes-on-anywhere"},
        changed(
            BringUp,
            "attach",
            (
                "max(fresh) if base is None else base",
                "max(fresh) if base is None else base | 0x8000_8000 if self._is_packed else base",
            ),
        ),
        also={"bases.nothing-is-lost-or-done-twice"},
    ),
    mutant(
        "tells 13 for 14",
        {"bases.what-was-taken-is-given-back"},
        changed(Vrings, "get_base", ('"num": ring.base or 0', '"num": 13 if ring.base == 14 else ring.base or 0')),
        formats=SPLIT,
    ),
    mutant(
        "does not answer to a log",
        {"log.base-is-answered"},
        changed(WriteLog, "set_base", ("    return answer", "    return None")),
        only=("log.base-is-answered",),
    ),
    mutant(
        "marks nothing",
        {"log.written-buffers-are-marked"},
        changed(DirtyBitmap, "_mark_frames", ("self._mark_range(first, end)", "pass")),
        also={"log.used-ring-is-marked"},
    ),
    mutant(
        "logs for ever",
        {"log.nothing-while-off"},
        changed(WriteLog, "switch", ("self._is_on = is_on", "self._is_on |= is_on")),
    ),
    mutant(
        "logs no used ring elsewhere",
        {"log.used-ring-is-marked"},
        put_instead(DirtyBitmap, "_mark_aliases", lambda *_: None),
    ),
    mutant(
        "describes a larger area",
        {"inflight.area-is-described"},
        changed(Inflight, "make", ('"queue_size": payload.queue_size', '"queue_size": payload.queue_size - 1')),
        also={
            "inflight.nothing-is-left-after-use",
            "inflight.what-was-taken-is-done",
            "inflight.what-was-used-is-not-done-again",
        },
    ),
    mutant(
        "leaves all in flight",
        {"inflight.nothing-is-left-after-use"},
        replaced(_leave_in_flight),
        formats=SPLIT,
    ),
    mutant(
        "forgets what was taken",
        {"inflight.what-was-taken-is-done"},
        changed(
            SplitInflightQueue, "_take_over", ("heads = np.flatnonzero(self._inflight)", "heads = np.empty(0, int)")
        ),
        also={"inflight.what-was-used-is-not-done-again"},
    ),
    mutant(
        "does the last batch again",
        {"inflight.what-was-used-is-not-done-again"},
        put_instead(SplitInflightQueue, "_settle_last_batch", lambda *_: None),
    ),
]
