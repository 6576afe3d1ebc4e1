"""Mutants for the checks of vhost-user sessions: our own back end with one fault, served in a thread."""

import contextlib
import inspect

from check_mutants import Mutant, changed, replaced

import vdev.vhost_user.configuration
import vdev.vhost_user.server
import vdev.vhost_user.session
from spec.vhost_user import U64, FrontEndRequest, ProtocolFeature
from vdev.check.registry import RingFormat
from vdev.check.verdict import Verdict
from vdev.device import Device
from vdev.devices.entropy import EntropyDevice
from vdev.devices.kind import Carrier
from vdev.errors import FrontEndViolation, SavedStateError
from vdev.vhost_user.attachment import Attachment
from vdev.vhost_user.bring_up import BringUp
from vdev.vhost_user.configuration import Configuration
from vdev.vhost_user.device_state import DeviceStateTransfer
from vdev.vhost_user.dirty_bitmap import DirtyBitmap
from vdev.vhost_user.dispatch import Answer, Dispatch
from vdev.vhost_user.inflight import Inflight
from vdev.vhost_user.log import WriteLog
from vdev.vhost_user.memory_table import MemoryTable
from vdev.vhost_user.phases import RULES, Phase, Refusal, Rule
from vdev.vhost_user.server import BackEnd
from vdev.vhost_user.session import Session
from vdev.vhost_user.split_inflight import SplitInflightQueue
from vdev.vhost_user.status import Status
from vdev.vhost_user.vring import Vring
from vdev.vhost_user.vrings import Vrings

_R = FrontEndRequest
_SPLIT = (RingFormat.SPLIT,)
"""Of faults that have nothing to do with the format, and make a check wait."""


def mutant(name, kills, patch=None, *, kind="entropy", only=(), **options):
    """Judged by the checks of the subjects that it fails, of how messages are answered, and of how a ring is used."""
    subjects = {f"{check.partition('.')[0]}.*" for check in kills}
    only = only or (*sorted(subjects | {"messages.*", "used.*"}),)
    return Mutant(name, kind, kills, patch=patch, carrier=Carrier.VHOST_USER, only=only, **options)


def put_instead(owner, name, value):
    """A ``patch``: an attribute is another one."""
    return replaced(lambda patch: patch.setattr(owner, name, value))


def wrapped(owner, name, wrap):
    """A ``patch``: a method is ``wrap(method)``."""
    return put_instead(owner, name, wrap(owner.__dict__[name]))


def refused(request, refusal=Refusal.ACKNOWLEDGED):
    """A ``patch``: a request is never legal."""
    return replaced(lambda patch: patch.setitem(RULES, request, Rule(frozenset(), refusal)))


def u64(value):
    return U64.build({"value": value})


# Messages


def _short_queue_num(self, *_):
    return u64(len(self.rings.all))[:4]


def _swallow_third(get):
    def handle(self, *arguments):
        self.asked = getattr(self, "asked", 0) + 1
        return None if self.asked == 3 else get(self, *arguments)

    return handle


def _pieces_are_wrong(receive):
    async def receive_part(sock, size):
        data, fds = await receive(sock, size)
        if 0 < len(data) < size:
            raise FrontEndViolation("Communication", "a part of a message")
        return data, fds

    return receive_part


def _acknowledge_config(handle):
    def handle_with_another_answer(self, message):
        answer = handle(self, message)
        if message.request == _R.GET_CONFIG and message.needs_reply:
            return Answer(message.request, u64(0))
        return answer

    return handle_with_another_answer


def _refuse_as(request, value):
    def wrap(refusal):
        def refuse(self, message):
            if message.request == request and message.needs_reply:
                return Answer(message.request, u64(value))
            return refusal(self, message)

        return refuse

    return wrap


def _dies_of(kind):
    def wrap(method):
        def die(self, *arguments):
            try:
                return method(self, *arguments)
            except kind as error:
                raise RuntimeError("a back end that dies") from error

        return die

    return wrap


def _dies_of_parts(receive):
    async def die(self, *arguments):
        try:
            return await receive(self, *arguments)
        except FrontEndViolation as error:
            raise RuntimeError("a back end that dies") from error

    return die


def _dies_of_refusals(handle):
    def die(self, message):
        try:
            return handle(self, message)
        except FrontEndViolation as error:
            raise RuntimeError("a back end that dies") from error

    return die


_kept = []


def _keep_fds(dispatch):
    def obey(self, message):
        if message.request == _R.SET_OWNER:
            _kept.extend(message.take_fds())
        return dispatch(self, message)

    return obey


def _keep_removed(remove):
    def handle(self, payload, message):
        _kept.extend(message.take_fds())
        return remove(self, payload, message)

    return handle


# Sessions


class _Forgetful:
    """Offers another feature mask while rings run."""

    @staticmethod
    def offered(session):
        features = _offered.fget(session)
        return features ^ 1 << 29 if session.phase is Phase.RUNNING else features


_offered = Session.__dict__["offered_features"]
_offered_protocol = Session.__dict__["offered_protocol_features"]


def _protocol_features_after(get):
    def handle(self, *arguments):
        if not getattr(self, "was_asked", False):
            raise FrontEndViolation("Protocol features", "GET_FEATURES comes first")
        return get(self, *arguments)

    return handle


def _note_asked(get):
    def handle(self, *arguments):
        self.was_asked = True
        return get(self, *arguments)

    return handle


def _after_get_features(patch):
    patch.setattr(Session, "_get_features", _note_asked(Session.__dict__["_get_features"]))
    patch.setattr(
        Session, "_get_protocol_features", _protocol_features_after(Session.__dict__["_get_protocol_features"])
    )


def _enabled_at_first(init):
    def make(self, *arguments, **options):
        init(self, *arguments, **options)
        for ring in self.all:
            ring.is_enabled = True

    return make


# Rings


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


def _keep_first_kick(set_kick):
    def handle(self, payload, message):
        if self.named(payload.value & 0xFF).is_started:
            return None
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


class WritesLate(EntropyDevice):
    """Writes into the first buffer once more when it has served four."""

    first = None
    count = 0

    def reset(self):
        super().reset()
        self.first, self.count = None, 0

    def chains(self, number):
        for chain in super().chains(number):
            self.count += 1
            if self.first is None and chain.writable:
                self.first = chain.writable[0]
            yield chain

    def handle_queue(self, number):
        super().handle_queue(number)
        if self.first is not None and self.count >= 4:
            self.memory.write(self.first.address, b"\0")


# State


def _refuse_state(_, __):
    raise SavedStateError("no state is ever right")


def _take_any_state(load):
    def take(self, state):
        with contextlib.suppress(SavedStateError):
            load(self, state)

    return take


MUTANTS = [
    # messages
    mutant(
        "a short reply",
        {"messages.replies-have-their-form", "session.queue-num-counts-queues"},
        put_instead(Session, "_get_queue_num", _short_queue_num),
        also={"reply-ack.own-reply-is-the-only-one"},
    ),
    mutant(
        "swallows a request", {"messages.replies-come-in-order"}, wrapped(Session, "_get_queue_num", _swallow_third)
    ),
    mutant(
        "answers SET_OWNER unasked",
        {"messages.nothing-unasked"},
        changed(
            Dispatch,
            "_acknowledgement",
            ("if message.needs_reply and", "if (message.needs_reply or message.request == 3) and"),
        ),
    ),
    mutant(
        "takes no pieces",
        {"messages.in-pieces"},
        wrapped(vdev.vhost_user.server, "_receive_part", _pieces_are_wrong),
    ),
    mutant(
        "says that SET_VRING_ENABLE failed",
        {"reply-ack.legal-requests"},
        changed(Dispatch, "_acknowledgement", ('{"value": value}', '{"value": value or message.request == 18}')),
    ),
    mutant(
        "acknowledges what has a reply",
        {"reply-ack.own-reply-is-the-only-one"},
        wrapped(Session, "handle", _acknowledge_config),
        kind="block",
    ),
    mutant(
        "says that all went well",
        {"reply-ack.failure-is-told"},
        wrapped(Dispatch, "refusal", _refuse_as(_R.SET_VRING_NUM, 0)),
    ),
    mutant(
        "takes the unknown for done",
        {"reply-ack.unknown-is-not-success"},
        wrapped(Dispatch, "refusal", _refuse_as(0x7777, 0)),
    ),
    mutant(
        "dies of the unknown",
        {"messages.unknown-is-survived", "vhost-hostile.random-messages"},
        changed(
            Dispatch,
            "obey",
            ("if handler is None:", "if handler is None:\n        raise KeyError(name)\n    if handler is None:"),
        ),
        also={"reply-ack.unknown-is-not-success"},
        verdict=Verdict.CRASHED,
    ),
    # sessions
    mutant(
        "offers less when it runs",
        {"session.features-at-any-time"},
        put_instead(Session, "offered_features", property(_Forgetful.offered)),
    ),
    mutant("asks for GET_FEATURES first", {"session.protocol-features-first"}, replaced(_after_get_features)),
    mutant(
        "leaves rings disabled",
        {"session.enabled-without-protocol-features"},
        changed(Session, "_set_features", ("self._enable_all(True)", "pass")),
    ),
    mutant(
        "wants bit 30",
        {"session.bit-30-need-not-be-accepted"},
        changed(
            Session,
            "_set_features",
            (
                "    features = payload.value\n",
                "    features = payload.value\n"
                "    if self.protocol_features and not features >> 30 & 1:\n"
                "        raise FrontEndViolation('Protocol features', 'bit 30 is missing')\n",
            ),
        ),
    ),
    mutant(
        "takes in-band notifications alone",
        {"session.in-band-needs-its-friends"},
        put_instead(
            Session,
            "offered_protocol_features",
            property(lambda session: _offered_protocol.fget(session) | 1 << ProtocolFeature.INBAND_NOTIFICATIONS),
        ),
    ),
    mutant(
        "offers no MQ",
        {"session.mq-is-offered"},
        put_instead(
            Session, "offered_protocol_features", property(lambda session: _offered_protocol.fget(session) & ~1)
        ),
    ),
    mutant(
        "has no queues", {"session.queue-num-counts-queues"}, put_instead(Session, "_get_queue_num", lambda *_: u64(0))
    ),
    mutant("ends with RESET_OWNER", {"session.reset-owner-keeps-the-session"}, refused(_R.RESET_OWNER, Refusal.CLOSED)),
    mutant(
        "begins with enabled rings",
        {"session.another-begins-anew", "rings.disabled-has-no-effect"},
        wrapped(Vrings, "__init__", _enabled_at_first),
    ),
    # rings
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
        "keeps the first kick descriptor",
        {"rings.started-and-enabled"},
        wrapped(Vrings, "set_kick", _keep_first_kick),
        formats=_SPLIT,
    ),
    mutant(
        "forgets what is enabled before a start",
        {"rings.enabled-and-started"},
        changed(
            Vrings,
            "set_enabled",
            ("self.enable(ring, bool(payload.num))", "self.enable(ring, bool(payload.num) and ring.is_started)"),
        ),
        formats=_SPLIT,
    ),
    mutant(
        "waits for a kick", {"rings.what-is-there-is-done-without-a-kick"}, replaced(_wait_for_a_kick), formats=_SPLIT
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
        formats=_SPLIT,
    ),
    mutant(
        "takes disabled for enabled",
        {"rings.disabled-and-enabled-again", "rings.disabled-has-no-effect"},
        changed(Attachment, "settle", ("ring.is_started and ring.is_enabled and", "ring.is_started and")),
        also={"session.another-begins-anew"},
    ),
    # kick, call, error
    mutant(
        "does not poll",
        {"events.polled-without-a-descriptor"},
        replaced(_never_poll),
        formats=_SPLIT,
    ),
    mutant(
        "never calls",
        {"events.used-buffers-are-called"},
        put_instead(Vring, "call_driver", lambda self: None),
        also={"events.another-call-descriptor"},
        formats=_SPLIT,
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
        formats=_SPLIT,
    ),
    mutant("signals an error at a stop", {"events.no-error-without-one"}, wrapped(Vrings, "stop", _err_at_stop)),
    mutant(
        "keeps errors to itself",
        {"events.an-error-is-signalled"},
        put_instead(Vring, "fail", lambda self, error: setattr(self, "last_error", error)),
    ),
    # bases
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
        formats=_SPLIT,
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
        formats=_SPLIT,
    ),
    # memory
    mutant(
        "takes every address for low",
        {"memory.rings-and-buffers-in-any-region"},
        changed(MemoryTable, "translate", ("return slot.guest_address +", "return self._slots[0].guest_address +")),
        formats=_SPLIT,
    ),
    mutant(
        "keeps the first table",
        {"memory.another-table-replaces"},
        changed(
            MemoryTable,
            "set",
            ("    fds = message.fds\n", "    fds = message.fds\n    if self._slots:\n        return\n"),
        ),
        formats=_SPLIT,
    ),
    mutant("has no slots", {"memory.max-slots"}, put_instead(Session, "_get_max_mem_slots", lambda *_: u64(0))),
    mutant(
        "adds nothing",
        {"memory.region-added"},
        put_instead(MemoryTable, "add", lambda *_: None),
        also={"memory.removed-is-not-used"},
        formats=_SPLIT,
    ),
    mutant(
        "keeps what comes with a removal",
        {"memory.descriptor-of-removal-is-closed"},
        wrapped(MemoryTable, "remove", _keep_removed),
    ),
    mutant("removes nothing", {"memory.removed-is-not-used"}, put_instead(MemoryTable, "remove", lambda *_: None)),
    mutant("writes late", {"memory.buffers-stay-after-they-were-used"}, make=WritesLate),
    # configuration space, status, reset
    mutant(
        "answers with four bytes",
        {"config.reply-is-as-large-as-asked"},
        changed(
            Configuration,
            "get",
            ("self._check(payload)", "self._check(payload)\n    payload.size = max(payload.size, 4)"),
        ),
        kind="block",
        also={"config.reads-the-same-twice"},
    ),
    mutant(
        "begins at 0",
        {"config.reply-begins-where-asked"},
        changed(Configuration, "get", ("[payload.offset : payload.offset + payload.size]", "[: payload.size]")),
        kind="block",
    ),
    mutant(
        "has bytes everywhere",
        {"config.nothing-there-is-empty"},
        changed(
            Configuration, "_check", ("if payload.offset >= self.size or not", "if payload.offset < self.size and not")
        ),
        kind="block",
    ),
    mutant(
        "takes every field",
        {"config.read-only-is-not-taken"},
        changed(Configuration, "set", ("if payload.flags == ConfigFlag.MIGRATION:", "if True:")),
        kind="block",
    ),
    mutant(
        "takes every flag",
        {"config.unknown-flags-are-not-taken"},
        put_instead(vdev.vhost_user.configuration, "CONFIG_FLAGS", frozenset(range(256))),
        kind="block",
    ),
    mutant(
        "forgets the driver",
        {"status.is-as-it-was-set"},
        changed(Status, "set", ("& ~int(refused)", "& ~int(refused) & ~2")),
    ),
    mutant(
        "cannot be reset before DRIVER_OK",
        {"status.zero-resets"},
        changed(Status, "set", ("self.written = ", "if payload.value or self.written != 11:\n        self.written = ")),
    ),
    mutant(
        "does not reset", {"reset-device.rings-are-left-alone"}, put_instead(Session, "_reset_device", lambda *_: None)
    ),
    mutant("refuses to be reset", {"reset-device.can-be-brought-up-again"}, refused(_R.RESET_DEVICE)),
    # log
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
    # in flight
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
        formats=_SPLIT,
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
    # state
    mutant(
        "says that saving failed",
        {"state.saved-to-its-end"},
        changed(
            DeviceStateTransfer,
            "check",
            ("if transfer is None:", "if transfer is None or transfer.direction is TransferDirection.SAVE:"),
        ),
    ),
    mutant("loads nothing", {"state.loaded-and-goes-on"}, put_instead(Session, "load_state", _refuse_state)),
    mutant("loads anything", {"state.half-is-not-success"}, wrapped(Session, "load_state", _take_any_state)),
    # hostile
    mutant(
        "dies of what it refuses",
        {
            "vhost-hostile.file-descriptors",
            "vhost-hostile.memory-regions",
            "vhost-hostile.memory-slots",
            "vhost-hostile.optional-messages",
            "vhost-hostile.payload-of-another-size",
            "vhost-hostile.random-messages",
            "vhost-hostile.ring-over-nothing",
            "vhost-hostile.ring-set-up",
            "vhost-hostile.while-running",
        },
        wrapped(Dispatch, "obey", _dies_of(FrontEndViolation)),
        also={
            "messages.unknown-is-survived",
            "vhost-hostile.wrong-header",
            "vhost-hostile.refused-descriptors-are-closed",
        },
        verdict=Verdict.CRASHED,
    ),
    mutant(
        "dies of what is no message",
        {"vhost-hostile.cut-message", "vhost-hostile.huge-payload", "vhost-hostile.wrong-header"},
        wrapped(BackEnd, "_receive", _dies_of_parts),
        also={"vhost-hostile.file-descriptors"},
        verdict=Verdict.CRASHED,
    ),
    mutant(
        "keeps what it refuses", {"vhost-hostile.refused-descriptors-are-closed"}, wrapped(Dispatch, "obey", _keep_fds)
    ),
]
