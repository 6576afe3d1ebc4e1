"""Mutants for the checks of vhost-user messages: our own back end with one fault, served in a thread."""

from check_mutants import changed
from check_vhost_faults import R, keeping, kept, mutant, put_instead, u64, wrapped

import vdev.vhost_user.configuration
import vdev.vhost_user.server
import vdev.vhost_user.session
from vdev.check.verdict import Verdict
from vdev.errors import FrontEndViolation
from vdev.vhost_user.dispatch import Answer, Dispatch
from vdev.vhost_user.server import BackEnd
from vdev.vhost_user.session import Session


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
        if message.request == R.GET_CONFIG and message.needs_reply:
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


def _keep_fds(dispatch):
    def obey(self, message):
        if message.request == R.SET_OWNER:
            kept.extend(message.take_fds())
        return dispatch(self, message)

    return obey


MUTANTS = [
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
        wrapped(Dispatch, "refusal", _refuse_as(R.SET_VRING_NUM, 0)),
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
        "keeps what it refuses",
        {"vhost-hostile.refused-descriptors-are-closed"},
        keeping(wrapped(Dispatch, "obey", _keep_fds)),
    ),
]
