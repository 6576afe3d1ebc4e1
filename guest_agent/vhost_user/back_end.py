"""The back end at the other end of a connection: asking it, and giving it up when it cannot be trusted or is gone."""

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from guest_agent.vhost_user.addresses import shared_regions
from guest_agent.vhost_user.connection import PATIENCE, BackEndConnection
from guest_agent.vhost_user.errors import BackEndGone, BackEndLost, BackEndNotResponding, BackEndRefused
from guest_agent.vhost_user.memory_table import memory_messages
from guest_agent.vhost_user.session import KNOWN_PROTOCOL_FEATURES, FrontEndSession
from spec.vhost_user import PROTOCOL_FEATURES, FrontEndRequest, ProtocolFeature
from vdev.errors import VdevError, VhostUserViolation
from vdev.memory import GuestMemory

__all__ = ["BackEnd"]

_R = FrontEndRequest


class BackEnd:
    """The back end behind `sock`, a connected unix stream socket that belongs to this object from now on.

    Agrees on protocol features (those of `wanted_protocol_features` that both know) and opens the back-end channel.
    Whatever the back end does wrong, and each wait of more than `patience` seconds of `clock`, raises BackEndLost; the
    connection is then closed, and `lost` says why.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        name: str = "the back end",
        wanted_protocol_features: int = KNOWN_PROTOCOL_FEATURES,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.lost: BackEndLost | None = None
        """Why the back end was given up, None while it is in use."""
        self.queue_count: int | None = None
        """Queues that the back end has, None if it does not say (no MQ)."""
        self.session = FrontEndSession()
        self.connection = BackEndConnection(sock, self.session.back_end_request, patience=patience, clock=clock)
        self._memory_told = False
        try:
            self._agree(wanted_protocol_features & KNOWN_PROTOCOL_FEATURES)
        except BaseException:
            self.connection.close()
            raise

    def _agree(self, wanted_protocol_features: int) -> None:
        self.ask(_R.SET_OWNER)
        self.offered_features = int(self.ask(_R.GET_FEATURES).value)
        """The mask that the back end offers, its own bits (LOG_ALL, PROTOCOL_FEATURES) among them."""
        if self.offered_features >> PROTOCOL_FEATURES & 1:
            offered = self.ask(_R.GET_PROTOCOL_FEATURES).value
            self.ask(_R.SET_PROTOCOL_FEATURES, value=offered & wanted_protocol_features)
        if self.has(ProtocolFeature.MQ):
            self.queue_count = int(self.ask(_R.GET_QUEUE_NUM).value)
        if self.has(ProtocolFeature.BACKEND_REQ):
            with self.connection.open_channel() as theirs:
                self.ask(_R.SET_BACKEND_REQ_FD, fds=[theirs.fileno()])

    def has(self, *features: ProtocolFeature) -> bool:
        """Say whether all of these protocol features are in use."""
        return self.session.has(*features)

    def ask(self, request: FrontEndRequest, *, fds: Sequence[int] = (), **fields: Any) -> Any:
        """Send a request; return the payload of its answer, None if it has none.

        Raises BackEndLost, or BackEndRefused where the back end says no.
        """
        payload, fd = self.ask_for_fd(request, fds=fds, **fields)
        if fd is not None:
            os.close(fd)
        return payload

    def ask_for_fd(self, request: FrontEndRequest, *, fds: Sequence[int] = (), **fields: Any) -> tuple[Any, int | None]:
        """Like `ask`; returns also the file descriptor that came with the answer, for the caller to close."""
        with self.trust():
            self.connection.send(self.session.request(request, **fields), fds, request.name)
            if self.session.awaited is None:
                return None, None
            message = self.connection.receive(request.name)
            payload = self.session.answer(message)
            return payload, next(iter(message.take_fds()), None)

    def settle(self) -> None:
        """Return when the back end has done all that it was asked. Raises BackEndLost.

        One that does not acknowledge shows by its next answer that it took all the rest.
        """
        if not self.has(ProtocolFeature.REPLY_ACK):
            self.ask(_R.GET_FEATURES)

    @contextmanager
    def trust(self) -> Iterator[None]:
        """Give the back end up if what is done inside shows that it must be. Raises BackEndLost."""
        if self.lost is not None:
            raise self.lost
        try:
            yield
        except (VhostUserViolation, BackEndGone, BackEndNotResponding) as cause:
            raise self.give_up(cause) from cause

    def give_up(self, cause: VdevError) -> BackEndLost:
        """Close the connection for good; return the error that every call raises from now on."""
        self.lost = BackEndLost(self.name, cause)
        self.connection.close()
        return self.lost

    def tell_memory(self, memory: GuestMemory) -> None:
        """Share guest RAM, if that was not done on this connection.

        Raises UserError for RAM that cannot be shared, BackEndRefused if the back end has no room for its regions.
        """
        if self._memory_told:
            return
        messages = memory_messages(shared_regions(memory), by_slots=self.has(ProtocolFeature.CONFIGURE_MEM_SLOTS))
        if not messages:
            raise BackEndRefused("Memory regions description", f"{self.name} takes no {len(memory.regions)} regions")
        if len(messages) > 1 and (slot_count := self.ask(_R.GET_MAX_MEM_SLOTS).value) < len(messages):
            raise BackEndRefused(
                "Memory regions description", f"{self.name} takes {slot_count} regions, not {len(messages)}"
            )
        for request, fields, fds in messages:
            self.ask(request, fds=fds, **fields)
        self._memory_told = True

    def take_config_changes(self) -> int:
        """Look, without waiting, whether the back end is there; return how often its configuration changed meanwhile.

        Raises BackEndLost.
        """
        with self.trust():
            self.connection.look()
        return self.connection.take_config_changes()

    def filenos(self) -> list[int]:
        """Return the descriptors that become readable when `take_config_changes` is worth a call; none once lost."""
        return [] if self.lost is not None else self.connection.filenos()
