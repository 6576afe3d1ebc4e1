"""The vocabulary of schedules: which actors there are, and the names of their acts (docs/race.md)."""

from vdev.race.verdict import Act

__all__ = ["ACTORS", "ACTS", "parse_act"]

_DRIVER = ("look", "reap", "announce", "collect", "queue", "end")
_WORKLOAD = ("write", "free")

ACTS: dict[str, tuple[str, ...]] = {
    "vcpu 0": (*_DRIVER, *_WORKLOAD),
    "vcpu 1": _WORKLOAD,
    "handler": ("handle", "pop", "check", "filter", "sync", "return"),
    "migrator": ("start", "go on", "advance", "sync", "take", "send", "stop", "complete", "cancel"),
}
"""Actor -> the names of its acts."""

ACTORS = tuple(ACTS)

_OF_A_PAGE = {"write", "free", "take", "send"}


def parse_act(text: str) -> Act:
    """Return the act that str() wrote as `text`, like "vcpu 1: write 0".

    Raises ValueError, whose message says what is wrong.
    """
    actor, colon, rest = text.partition(": ")
    if not colon or actor not in ACTS:
        raise ValueError(f"no actor; an act begins with one of {', '.join(ACTORS)}, and a colon")
    name = next((name for name in ACTS[actor] if rest == name or rest.startswith(f"{name} ")), None)
    if name is None:
        raise ValueError(f"{actor} has no such act; it has {', '.join(ACTS[actor])}")
    page = rest[len(name) + 1 :]
    if name not in _OF_A_PAGE:
        if rest != name:
            raise ValueError(f"{name} stands alone")
        return Act(actor, name)
    if not (page.isascii() and page.isdecimal() and str(int(page)) == page):
        raise ValueError(f"{name} needs the number of a page")
    return Act(actor, name, int(page))
