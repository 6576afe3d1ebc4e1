"""The question that remains when the link breaks between COMMIT and RESUMED: does the guest run over there?"""

from enum import StrEnum
from uuid import UUID

from host_migrator.errors import MalformedRecord, UnexpectedRecord
from host_migrator.link import Link
from host_migrator.stream import (
    BACKWARD,
    FORWARD,
    Answer,
    Item,
    Preamble,
    Query,
    StreamParser,
    build_preamble,
    build_record,
)

__all__ = ["Fate", "ask_fate", "receive_query", "send_fate"]


class Fate(StrEnum):
    """What became of a guest at the destination. GONE is a promise: it will not run there."""

    RUNNING = "running"
    GONE = "gone"
    UNKNOWN = "unknown"


async def ask_fate(link: Link, migration_id: UUID) -> Fate:
    """Ask the destination over a fresh `link`. Raises LinkClosed or a StreamError when no answer comes."""
    await link.send([[build_preamble(migration_id)], build_record(Query())])
    parser: StreamParser = StreamParser(BACKWARD, preamble=False)
    item = await link.receive(parser)
    if not isinstance(item, Answer):
        raise UnexpectedRecord(f"{type(item).__name__} in answer to a query", parser.offset)
    if item.fate not in (Fate.RUNNING, Fate.GONE):
        raise MalformedRecord(f"an answer of {item.fate!r}", parser.offset)
    return Fate(item.fate)


async def receive_query(link: Link) -> UUID:
    """Return the migration that a connection asks about.

    Raises UnexpectedRecord when it is no query but another migration, and what else the stream does.
    """
    parser: StreamParser = StreamParser(FORWARD, preamble=True)
    preamble: Item = await link.receive(parser)
    item = await link.receive(parser)
    if not isinstance(preamble, Preamble) or not isinstance(item, Query):
        raise UnexpectedRecord("another migration, where one is under way", parser.offset)
    return preamble.migration_id


async def send_fate(link: Link, fate: Fate) -> None:
    """Answer."""
    await link.send([build_record(Answer(fate))])
