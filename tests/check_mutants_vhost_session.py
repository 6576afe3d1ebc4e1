"""Mutants for the checks of vhost-user sessions, memory, configuration space, reset and state."""

import contextlib

from check_mutants import changed, replaced
from check_vhost_faults import SPLIT, R, keeping, kept, mutant, put_instead, refused, u64, wrapped

import vdev.vhost_user.configuration
import vdev.vhost_user.server
import vdev.vhost_user.session
from spec.vhost_user import ProtocolFeature
from vdev.devices.entropy import EntropyDevice
from vdev.errors import FrontEndViolation, SavedStateError
from vdev.vhost_user.configuration import Configuration
from vdev.vhost_user.device_state import DeviceStateTransfer
from vdev.vhost_user.memory_table import MemoryTable
from vdev.vhost_user.phases import Phase, Refusal
from vdev.vhost_user.session import Session
from vdev.vhost_user.status import Status
from vdev.vhost_user.vrings import Vrings


def _keep_removed(remove):
    def handle(self, payload, message):
        kept.extend(message.take_fds())
        return remove(self, payload, message)

    return handle


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


def _refuse_state(_, __):
    raise SavedStateError("no state is ever right")


def _take_any_state(load):
    def take(self, state):
        with contextlib.suppress(SavedStateError):
            load(self, state)

    return take


MUTANTS = [
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
    mutant("ends with RESET_OWNER", {"session.reset-owner-keeps-the-session"}, refused(R.RESET_OWNER, Refusal.CLOSED)),
    mutant(
        "begins with enabled rings",
        {"session.another-begins-anew", "rings.disabled-has-no-effect"},
        wrapped(Vrings, "__init__", _enabled_at_first),
    ),
    mutant(
        "takes every address for low",
        {"memory.rings-and-buffers-in-any-region"},
        changed(MemoryTable, "translate", ("return slot.guest_address +", "return self._slots[0].guest_address +")),
        formats=SPLIT,
    ),
    mutant(
        "keeps the first table",
        {"memory.another-table-replaces"},
        changed(
            MemoryTable,
            "set",
            ("    fds = message.fds\n", "    fds = message.fds\n    if self._slots:\n        return\n"),
        ),
        formats=SPLIT,
    ),
    mutant("has no slots", {"memory.max-slots"}, put_instead(Session, "_get_max_mem_slots", lambda *_: u64(0))),
    mutant(
        "adds nothing",
        {"memory.region-added"},
        put_instead(MemoryTable, "add", lambda *_: None),
        also={"memory.removed-is-not-used"},
        formats=SPLIT,
    ),
    mutant(
        "keeps what comes with a removal",
        {"memory.descriptor-of-removal-is-closed"},
        keeping(wrapped(MemoryTable, "remove", _keep_removed)),
    ),
    mutant("removes nothing", {"memory.removed-is-not-used"}, put_instead(MemoryTable, "remove", lambda *_: None)),
    mutant("writes late", {"memory.buffers-stay-after-they-were-used"}, make=WritesLate),
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
    mutant("refuses to be reset", {"reset-device.can-be-brought-up-again"}, refused(R.RESET_DEVICE)),
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
]
