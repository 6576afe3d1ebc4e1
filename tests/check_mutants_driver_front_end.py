"""Faults in what a front end sends: one message of a session that is right is changed, or put in."""

import os
import struct
from collections.abc import Callable
from dataclasses import dataclass

from check_driver_setup import make_sink

from spec.device import Feature, feature_mask
from spec.vhost_user import (
    LOG,
    MEMORY_TABLE,
    NO_FD,
    PROTOCOL_FEATURES,
    SINGLE_REGION,
    VRING_ADDRESS,
    FrontEndRequest,
    ProtocolFeature,
    protocol_feature_mask,
)
from vdev.check.driver.judge import Judge
from vdev.check.driver.messages import JudgedSession
from vdev.devices.kind import Carrier
from vdev.errors import FrontEndViolation
from vdev.memory import GuestMemory
from vdev.vhost_user.framing import Message

R = FrontEndRequest
SIZE = 1 << 20
USER = 0x7F00_0000_0000
FEATURES = feature_mask(Feature.VERSION_1, PROTOCOL_FEATURES)
P = ProtocolFeature
PROTOCOL = protocol_feature_mask(
    P.MQ, P.REPLY_ACK, P.BACKEND_REQ, P.CONFIGURE_MEM_SLOTS, P.LOG_SHMFD, P.DEVICE_STATE, P.RESET_DEVICE
)


def memfd(size=SIZE):
    fd = os.memfd_create("ram")
    os.truncate(fd, size)
    return fd


def eventfd():
    return os.eventfd(0, os.EFD_NONBLOCK)


def pipe():
    """The end of a pipe that is written to."""
    read, write = os.pipe()
    os.close(read)
    return write


@dataclass
class Sent:
    """One message: its file descriptors are made when it is sent."""

    request: int
    body: bytes = b""
    fds: tuple[Callable[[], int], ...] = ()
    flags: int = 1


def u64(value):
    return struct.pack("<Q", value)


def state(index, number):
    return struct.pack("<II", index, number)


def region(guest, user, size=SIZE):
    return {"guest_address": guest, "size": size, "user_address": user, "mmap_offset": 0}


def table(*regions):
    return MEMORY_TABLE.build({"region_count": len(regions), "regions": list(regions)})


def address(index=0, base=USER):
    fields = {"index": index, "flags": 0, "log": 0}
    return VRING_ADDRESS.build({**fields, "descriptor": base, "available": base + 0x1000, "used": base + 0x2000})


def session():
    """All messages of a session that is right."""
    single = SINGLE_REGION.build({"region": region(1 << 32, USER + (1 << 32))})
    return [
        Sent(R.GET_FEATURES),
        Sent(R.GET_PROTOCOL_FEATURES),
        Sent(R.SET_PROTOCOL_FEATURES, u64(PROTOCOL)),
        Sent(R.SET_OWNER),
        Sent(R.GET_QUEUE_NUM),
        Sent(R.SET_FEATURES, u64(FEATURES)),
        Sent(R.SET_MEM_TABLE, table(region(0, USER)), (memfd,), flags=9),
        Sent(R.ADD_MEM_REG, single, (memfd,)),
        Sent(R.REM_MEM_REG, single),
        Sent(R.SET_LOG_BASE, LOG.build({"size": 4096, "offset": 0}), (memfd,)),
        Sent(R.SET_VRING_NUM, state(0, 16)),
        Sent(R.SET_VRING_BASE, state(0, 0)),
        Sent(R.SET_VRING_ADDR, address()),
        Sent(R.SET_VRING_CALL, u64(0), (eventfd,)),
        Sent(R.SET_VRING_KICK, u64(0), (eventfd,)),
        Sent(R.SET_VRING_ENABLE, state(0, 1)),
        Sent(R.GET_VRING_BASE, state(0, 0)),
        Sent(R.SET_DEVICE_STATE_FD, state(0, 0), (pipe,)),
    ]


@dataclass(frozen=True)
class FrontEndMutant:
    """A session in which ``change`` is done to the first message of ``request``, or ``before`` it one is put in."""

    name: str
    kills: frozenset | set
    request: int
    change: dict | None = None
    before: Sent | None = None
    also: frozenset | set = frozenset()

    def messages(self):
        sent = session()
        place = next(at for at, each in enumerate(sent) if each.request == self.request)
        if self.change is not None:
            vars(sent[place]).update(self.change)
        if self.before is not None:
            sent.insert(place, self.before)
        return sent

    def judged(self):
        """All results by name."""
        return judged(self.messages())


def judged(messages):
    """Hold a session's messages against the rules; returns results by name."""
    judge = Judge("generic", Carrier.VHOST_USER, make_device=make_sink, only=["front-end.*", "game.plain[split]"])
    sitting = judge.sit(judge.plan.starts[0], GuestMemory.absent(), Carrier.VHOST_USER, lambda: 0.0)
    talk = JudgedSession(sitting, sitting.device)
    try:
        for each in messages:
            answer = talk.handle(Message(each.request, each.flags, each.body, [make() for make in each.fds]))
            for fd in answer.fds if answer is not None else ():
                os.close(fd)
    except FrontEndViolation:
        pass  # the connection ends
    finally:
        talk.close()
        sitting.close()
    return {case.name: case for case in judge.cases()}


MUTANTS = [
    FrontEndMutant("version-2", {"front-end.header"}, R.SET_OWNER, {"flags": 2}),
    FrontEndMutant("early-acknowledgement", {"front-end.no-early-acknowledgement"}, R.GET_FEATURES, {"flags": 9}),
    FrontEndMutant("short-payload", {"front-end.payloads"}, R.SET_VRING_NUM, {"body": b"\0\0\0\0"}),
    FrontEndMutant(
        "feature-not-offered", {"front-end.features-offered"}, R.SET_FEATURES, {"body": u64(FEATURES | 1 << 45)}
    ),
    FrontEndMutant(
        "protocol-features-unasked",
        {"front-end.protocol-features-exist"},
        R.GET_FEATURES,
        before=Sent(R.GET_PROTOCOL_FEATURES),
    ),
    FrontEndMutant(
        "protocol-feature-not-offered",
        {"front-end.protocol-features-offered"},
        R.SET_PROTOCOL_FEATURES,
        {"body": u64(PROTOCOL | 1 << P.MTU)},
    ),
    FrontEndMutant("not-agreed", {"front-end.requests-agreed"}, R.SET_OWNER, before=Sent(R.GET_STATUS)),
    FrontEndMutant(
        "in-band-alone",
        {"front-end.in-band-with-both"},
        R.SET_PROTOCOL_FEATURES,
        {"body": u64(1 << P.INBAND_NOTIFICATIONS)},
        also={"front-end.protocol-features-offered"},
    ),
    FrontEndMutant("table-without-memory", {"front-end.descriptor-for-each-region"}, R.SET_MEM_TABLE, {"fds": ()}),
    FrontEndMutant(
        "regions-overlap",
        {"front-end.regions-apart"},
        R.SET_MEM_TABLE,
        {"body": table(region(0, USER), region(SIZE // 2, USER + SIZE)), "fds": (memfd, memfd)},
    ),
    FrontEndMutant("descriptor-to-remove", {"front-end.no-descriptor-to-remove"}, R.REM_MEM_REG, {"fds": (memfd,)}),
    FrontEndMutant(
        "enable-not-agreed",
        {"front-end.enable-agreed"},
        R.SET_FEATURES,
        {"body": u64(feature_mask(Feature.VERSION_1))},
    ),
    FrontEndMutant("no-such-ring", {"front-end.ring-exists"}, R.SET_VRING_NUM, {"body": state(2, 16)}),
    FrontEndMutant("base-with-a-number", {"front-end.base-asked-with-0"}, R.GET_VRING_BASE, {"body": state(0, 7)}),
    FrontEndMutant("bit-8-with-a-descriptor", {"front-end.bit-8"}, R.SET_VRING_CALL, {"body": u64(NO_FD)}),
    FrontEndMutant(
        "ring-elsewhere", {"front-end.rings-in-memory"}, R.SET_VRING_ADDR, {"body": address(base=USER + 2 * SIZE)}
    ),
    FrontEndMutant(
        "log-too-small",
        {"front-end.log-large-enough"},
        R.SET_LOG_BASE,
        {"body": LOG.build({"size": 16, "offset": 0})},
    ),
    FrontEndMutant(
        "state-while-running",
        {"front-end.state-while-stopped"},
        R.GET_VRING_BASE,
        before=Sent(R.SET_DEVICE_STATE_FD, state(0, 0), (pipe,)),
    ),
    FrontEndMutant(
        "post-copy",
        {"front-end.no-post-copy-with-slots"},
        R.SET_OWNER,
        before=Sent(R.POSTCOPY_ADVISE),
    ),
]
