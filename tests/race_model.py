"""A naive model of the lab's protocol, after docs/race.md: explicit states, breadth first, no code of ours.

Where that page is silent (how a bitmap's request travels, when a guest answers again) it does what the driver does.

There are no rings and no bytes: the queue is a FIFO of messages. Sets of pages are bit masks. The guest is in
race_model_guest.py; here are the host, the oracle and the search.
"""

from collections.abc import Iterator
from typing import NamedTuple

from race_model_guest import driver, workload
from race_model_state import (
    COMPLETE,
    NEW,
    REQUESTED,
    RUNNING,
    START,
    STOP,
    STOPPED,
    USED,
    WAITING,
    Case,
    State,
    first,
    put,
)

PIECES = {  # what the handlers without a lock do between `pop` and `return`
    "filter-on-ready": ("filter", "sync"),
    "drain-in-exit-sync-first": ("sync", "filter"),
    "drain-in-exit-filter-first": ("filter", "sync"),
    "ignore-late-unlocked": ("check", "filter"),
}
STRATEGIES = (
    "none",
    "block-bulk",
    *("filter-on-ready", "drain-in-exit-sync-first", "drain-in-exit-filter-first"),
    *("flush-after-sync", "ignore-late", "ignore-late-unlocked"),
    *("interval", "resubmit", "host-timer", "command-id"),
)


def lost(s: State) -> bool:
    """The oracle: at `complete` the guest relies on a page that the destination has in another version."""
    if s.phase != COMPLETE:
        return False
    return any(k == USED and d != w for k, d, w in zip(s.kinds, s.destination, s.written, strict=True))


def in_exit(case: Case, s: State) -> bool:
    """The kick was an exit, and the host has not finished it."""
    return case.strategy.startswith("drain-in-exit") and (s.kicked or bool(s.pieces))


# -- the host's handler


def read(case: Case, s: State) -> State:
    """Everything available is taken off the queue; the ids among it move the state."""
    for what, value in s.queue:
        number = s.field if what == "reference" else value
        if what == "request":
            s = send_request(s._replace(has_buffer=True))
        elif what != "hint" and case.strategy == "command-id":
            begins = s.state == REQUESTED and number == s.asked
            s = s._replace(state=START if begins else STOP if s.state == START else s.state)
    popped = tuple(message for message in s.queue if message[0] != "request")
    return s._replace(queue=(), kicked=False, popped=popped)


def send_request(s: State) -> State:
    """A bitmap is asked for with a used buffer, as soon as there is one."""
    if not (s.has_buffer and s.is_due and s.state == REQUESTED):
        return s
    return s._replace(has_buffer=False, is_due=False, used=(*s.used, ("request", s.asked)))


def give_back(s: State) -> State:
    """The popped buffers are used."""
    return s._replace(popped=(), pieces=(), used=s.used + s.popped)


def apply(case: Case, s: State, pages: int) -> State:
    """A hint that counts: M is cleared; the source page goes, too, with `discard`."""
    if not pages:
        return s
    source = put(s.source, pages, 0) if case.effect == "discard" else s.source
    return clear_log(s._replace(left=s.left & ~pages, source=source))


def clear_log(s: State) -> State:
    """The deferred log forgets what the last sync saw: all RAM is one chunk. The other log has nothing of this kind."""
    return s._replace(dirty=s.dirty & ~s.to_clear, to_clear=0)


def merge(case: Case, s: State) -> State:
    """M |= D, and D is cleared now or later."""
    if case.log == "get-and-clear":
        return s._replace(left=s.left | s.dirty, dirty=0)
    return s._replace(left=s.left | s.dirty, to_clear=s.dirty)


def counts(case: Case, s: State) -> bool:
    """Whether a hint that is read now is applied, for the strategies that do not compare ids."""
    if case.strategy == "block-bulk":
        return s.phase == WAITING
    return s.syncs == 1 or not case.strategy.startswith("ignore-late")


def handle(case: Case, s: State) -> State:
    """All in one act, in the order of the queue."""
    for message in s.queue:
        s = give_back(read(case, s._replace(queue=(message,))))
        if message[0] == "hint" and (s.state == START if case.strategy == "command-id" else counts(case, s)):
            s = apply(case, s, message[1])
    return s._replace(queue=(), kicked=False)


def handler(case: Case, s: State) -> tuple[str, State] | None:
    """The next act of the queue's handler: whole, or a piece."""
    if s.pieces:
        piece, rest = s.pieces[0], s.pieces[1:]
        s = s._replace(pieces=rest)
        if piece == "return":
            return piece, give_back(s)
        if piece == "sync":
            return piece, merge(case, s)
        if piece == "check":
            return piece, s if counts(case, s) else s._replace(pieces=("return",))
        for what, value in s.popped:
            s = apply(case, s, value) if what == "hint" else s
        return piece, s
    if s.phase >= STOPPED or not s.queue or not (s.kicked or case.strategy == "host-timer"):
        return None
    if case.strategy not in PIECES:
        return "handle", handle(case, s)
    s = read(case, s)
    if any(what == "hint" for what, _ in s.popped):
        return "pop", s._replace(pieces=(*PIECES[case.strategy], "return"))
    return "pop", give_back(s)


# -- the migrator


def ask(case: Case, s: State) -> State:
    """A new id is shown, and an interrupt says so; a bitmap's request is a used buffer. Interval has a field, too."""
    s = s._replace(state=REQUESTED, asked=s.asked + 1, interrupt=s.interrupt or case.strategy == "interval")
    return s._replace(interrupt=True) if case.answer == "list" else send_request(s._replace(is_due=True))


def end_hints(s: State) -> State:
    """Command-id's STOP: nothing counts any more, and an interrupt says so unless the guest said it first."""
    return s if s.state == STOP else s._replace(state=STOP, interrupt=True)


def sync(case: Case, s: State) -> State:
    """A sync of the migrator with the strategy's hooks, but for the last."""
    asks = case.strategy == "command-id" and case.advance == "after-sync"
    s = merge(case, end_hints(s) if asks else s)._replace(syncs=s.syncs + 1, cursor=0, advanced=False)
    if case.strategy == "flush-after-sync":
        s = give_back(read(case, s))
        asks = True
    return ask(case, s) if asks else s


def migrator(case: Case, s: State) -> tuple[str, State] | None:
    """The migrator's next act; it has one until it is done, unless it waits for an exit."""
    everything = (1 << case.pages) - 1
    if s.phase == NEW:
        dirty = everything if case.log == "deferred-clear" else 0
        s = merge(case, s._replace(phase=RUNNING, left=everything, dirty=dirty, syncs=1))
        if case.strategy == "none":
            return "start", s
        return "start", ask(case, s._replace(phase=WAITING) if case.strategy == "block-bulk" else s)
    if s.phase == WAITING:
        return "go on", merge(case, s._replace(phase=RUNNING))
    if s.taken >= 0:
        destination = put(s.destination, 1 << s.taken, s.source[s.taken])
        return f"send {s.taken}", s._replace(destination=destination, taken=-1)
    ahead = s.left >> s.cursor << s.cursor
    if s.phase == STOPPED:
        ahead = ahead or s.left
    if ahead:
        page = (ahead & -ahead).bit_length() - 1
        return f"take {page}", clear_log(s._replace(left=s.left & ~(1 << page), cursor=page + 1, taken=page))
    if s.phase == STOPPED:
        return "complete", s._replace(phase=COMPLETE)
    if s.syncs == case.syncs - 1:
        stopped = merge(case, s)._replace(phase=STOPPED, syncs=s.syncs + 1, cursor=0, state=STOP)
        return None if in_exit(case, s) else ("stop", stopped)
    if case.advance == "before-sync" and not s.advanced:
        return "advance", ask(case, s)._replace(advanced=True)
    return "sync", sync(case, s)


# -- all together


def successors(case: Case, s: State) -> list[tuple[str, State]]:
    """Every act that some actor may do now, by name, and where it leads."""
    if s.phase == COMPLETE:
        return []
    found = [(f"{actor}: {act[0]}", act[1]) for actor, act in host(case, s)]
    if s.phase < STOPPED:
        blocked = in_exit(case, s)
        piece = None if blocked else driver(case, s)
        if piece:
            found.append((f"vcpu 0: {piece[0]}", piece[1]))
        if not (blocked and case.vcpus == 1):
            found += [(f"vcpu {case.vcpus - 1}: {name}", after) for name, after in workload(case, s)]
    return found


def host(case: Case, s: State) -> Iterator[tuple[str, tuple[str, State]]]:
    """The acts of the two actors of the host."""
    for name, actor in (("handler", handler), ("migrator", migrator)):
        act = actor(case, s)
        if act:
            yield name, act


class Verdict(NamedTuple):
    """What the search found: the acts of a shortest loss, or None; and how many states it saw."""

    loss: list[str] | None
    states: int


def search(case: Case) -> Verdict:
    """Breadth first over all orders; ends at the first loss."""
    start = first(case)
    came_from: dict[State, tuple[State, str] | None] = {start: None}
    edge = [start]
    while edge:
        coming = []
        for state in edge:
            for act, after in successors(case, state):
                if after in came_from:
                    continue
                came_from[after] = (state, act)
                if lost(after):
                    return Verdict(path(came_from, after), len(came_from))
                coming.append(after)
        edge = coming
    return Verdict(None, len(came_from))


def path(came_from: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    """The acts that led here."""
    acts: list[str] = []
    step = came_from[state]
    while step:
        acts.append(step[1])
        step = came_from[step[0]]
    return acts[::-1]
