"""How the stream travels: over a socket, or in memory with a bandwidth that is simulated."""

from host_migrator.link.interface import Link, Receiver
from host_migrator.link.loop import LoopLink
from host_migrator.link.sockets import SocketLink

__all__ = ["Link", "LoopLink", "Receiver", "SocketLink"]
