"""A back end that follows a script: it answers as it should, but for what a test makes it answer otherwise."""

import array
import contextlib
import os
import socket
import threading

from spec import vhost_user as spec
from spec.device import DeviceStatus, Feature, feature_mask
from spec.vhost_user import FRONT_END_REQUESTS, FrontEndRequest, TransferDirection
from vdev.errors import FrontEndViolation
from vdev.vhost_user.framing import MessageDecoder, encode, parse_payload

R = FrontEndRequest
STATE = b"the device's own state " * 5000
QUEUE_COUNT = 2
CONFIG_BYTES = bytes(range(64))
OFFERED = feature_mask(Feature.VERSION_1, spec.LOG_ALL)


class Answer:
    """Bytes and file descriptors to send; then, perhaps, the end of the connection."""

    def __init__(self, data=b"", fds=(), *, close=False):
        self.data = data
        self.fds = tuple(fds)
        self.close = close


class ScriptedBackEnd:
    """Serves `sock` in a thread. `changes` maps a request to what makes its answer from the right one."""

    def __init__(self, sock, changes=None, *, features=OFFERED, protocol_features=None):
        self.requests = []
        self.channel = None
        self.kicks, self.calls, self.errs = {}, {}, {}
        self.status = DeviceStatus.RESET
        self.bases = {}
        self.written_config = []
        self.loaded = b""
        self._socket = sock
        self._changes = changes or {}
        self._features = features | 1 << spec.PROTOCOL_FEATURES
        everything = (1 << 64) - 1
        self._protocol_features = everything if protocol_features is None else protocol_features
        self._acknowledges = False
        self._decoder = MessageDecoder(FrontEndViolation, FrontEndRequest)
        self._transfer = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        try:
            while self._serve_one():
                pass
        except OSError:
            pass  # the front end has closed the connection
        finally:
            self._close()

    def _close(self):
        self._decoder.close()
        self._socket.close()
        if self._transfer is not None:
            self._transfer.join(30)
        for fd in [*self.kicks.values(), *self.calls.values(), *self.errs.values()]:
            os.close(fd)
        if self.channel is not None:
            self.channel.close()

    def join(self):
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _serve_one(self):
        data, ancillary, _, _ = self._socket.recvmsg(
            self._decoder.wanted_size, socket.CMSG_SPACE(4 * 16), socket.MSG_CMSG_CLOEXEC
        )
        if not data:
            return False
        fds = array.array("i")
        for _, _, content in ancillary:
            fds.frombytes(content)
        for message in self._decoder.feed(data, fds):
            self.requests.append(R(message.request))
            try:
                answer = self._answer(message)
            finally:
                message.close()
            change = self._changes.get(message.request)
            if change is not None:
                changed = change(answer)
                for fd in set(answer.fds) - set(changed.fds):
                    os.close(fd)
                answer = changed
            self._send(answer)
            if answer.close:
                return False
        return True

    def _send(self, answer):
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", answer.fds))] if answer.fds else []
        if answer.data:
            self._socket.sendmsg([answer.data], ancillary)
        for fd in answer.fds:
            os.close(fd)

    def _answer(self, message):
        request = R(message.request)
        shape = FRONT_END_REQUESTS[request]
        payload = parse_payload(message, shape, request.name, FrontEndViolation)
        if shape.reply is None:
            self._note(request, payload, message)
            is_asked = message.needs_reply and self._acknowledges
            return Answer(reply(request, u64(0))) if is_asked else Answer()
        return self._reply(request, payload, message)

    def _note(self, request, payload, message):
        has_fd = {R.SET_VRING_KICK: self.kicks, R.SET_VRING_CALL: self.calls, R.SET_VRING_ERR: self.errs}
        if request in has_fd:
            (fd,) = message.take_fds()
            if (before := has_fd[request].pop(payload.value & 0xFF, None)) is not None:
                os.close(before)
            has_fd[request][payload.value & 0xFF] = fd
        elif request is R.SET_BACKEND_REQ_FD:
            (fd,) = message.take_fds()
            self.channel = socket.socket(fileno=fd)
        elif request is R.SET_STATUS:
            self.status = payload.value
        elif request is R.SET_VRING_BASE:
            self.bases[payload.index] = payload.num
        elif request is R.SET_CONFIG:
            self.written_config.append((payload.offset, payload.payload))
        elif request is R.SET_PROTOCOL_FEATURES:
            self._acknowledges = bool(payload.value >> spec.ProtocolFeature.REPLY_ACK & 1)

    def _reply(self, request, payload, message):
        match request:
            case R.GET_FEATURES:
                return Answer(reply(request, u64(self._features)))
            case R.GET_PROTOCOL_FEATURES:
                return Answer(reply(request, u64(self._protocol_features)))
            case R.GET_QUEUE_NUM:
                return Answer(reply(request, u64(QUEUE_COUNT)))
            case R.GET_MAX_MEM_SLOTS:
                return Answer(reply(request, u64(32)))
            case R.GET_STATUS:
                return Answer(reply(request, u64(self.status)))
            case R.GET_CONFIG:
                content = CONFIG_BYTES[payload.offset :][: payload.size].ljust(payload.size, b"\0")
                return Answer(reply(request, spec.CONFIG.build({**payload, "payload": content})))
            case R.GET_VRING_BASE:
                body = spec.VRING_STATE.build({"index": payload.index, "num": self.bases[payload.index]})
                return Answer(reply(request, body))
            case R.GET_INFLIGHT_FD:
                fd = os.memfd_create("inflight", os.MFD_CLOEXEC)
                os.ftruncate(fd, 4096)
                return Answer(reply(request, spec.INFLIGHT.build({**payload, "mmap_size": 4096})), [fd])
            case R.SET_DEVICE_STATE_FD:
                (fd,) = message.take_fds()
                self._begin_transfer(fd, payload.direction)
                return Answer(reply(request, u64(spec.NO_FD)))
            case R.SET_LOG_BASE:
                return Answer(reply(request, u64(0)))
            case R.CHECK_DEVICE_STATE:
                self._transfer.join(30)
                return Answer(reply(request, u64(0)))
        raise AssertionError(request)

    def _begin_transfer(self, fd, direction):
        def save():
            # The front end may have had enough.
            with contextlib.suppress(BrokenPipeError), os.fdopen(fd, "wb", 0) as file:
                file.write(STATE)

        def load():
            with os.fdopen(fd, "rb") as file:
                self.loaded = file.read()

        self._transfer = threading.Thread(target=save if direction == TransferDirection.SAVE else load)
        self._transfer.start()


def u64(value):
    return spec.U64.build({"value": value})


def reply(request, body):
    return encode(request, body, is_reply=True)


@contextlib.contextmanager
def scripted(changes=None, **options):
    """Give the front end's socket, and the back end behind it; the test closes the socket before the end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    back_end = ScriptedBackEnd(theirs, changes, **options)
    try:
        yield ours, back_end
    finally:
        ours.close()
        back_end.join()
