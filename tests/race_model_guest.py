"""The guest of the naive model: the driver's next piece of work, and what the workload may do."""

from collections.abc import Iterator

from race_model_state import FREE, HELD, LOOSE, REQUESTED, USED, Case, State, put


def can_collect(case: Case, s: State) -> int:
    """What the next `collect` picks; nothing when the bound is used up."""
    free = sum(1 << page for page, kind in enumerate(s.kinds) if kind == FREE) & ~s.walked
    if s.hints == case.hints:
        return 0
    return free if case.answer == "bitmap" else free & -free


def in_flight(s: State) -> list[str]:
    """What was queued and is not reaped yet, but for the buffer of a request."""
    return [what for what, _ in (*s.queue, *s.popped, *s.used) if what != "request"]


def answers_again(case: Case, s: State) -> bool:
    """Whether the guest begins another answer by itself: when its last one, or this one, has a hint in it."""
    if case.strategy != "interval" and (case.strategy not in ("resubmit", "host-timer") or in_flight(s)):
        return False
    held = any(kind in (HELD, LOOSE) for kind in s.kinds)
    return s.had_hint or can_collect(case, s._replace(walked=0)) > 0 or (held and not in_flight(s))


def driver(case: Case, s: State) -> tuple[str, State] | None:
    """The driver's next piece of work, if it has any. The order of its pieces is fixed."""
    early = case.collects == "before-announcing"
    if s.interrupt:
        return "look", looked(case, s)
    if s.used:
        return "reap", reaped(case, s)
    if not s.answering:
        if not s.current or (s.current == s.announced and not answers_again(case, s)):
            return None
        if s.hand is None and not s.dry:
            s = begun(s)
            if early:
                return ("collect", collected(case, s)) if has_room(case, s) else None
        return "announce", announced(case, s)
    if s.hand is not None:
        return "queue", queued(case, s, s.hand)
    if s.current != s.announced or s.dry:
        return "end", posted_id(case, s._replace(answering=False, dry=False), 0)
    return ("collect", collected(case, s)) if has_room(case, s) else None


def posted(s: State, what: str, value: int) -> State:
    """A buffer is made available, with a kick."""
    return s._replace(queue=(*s.queue, (what, value)), kicked=True)


def looked(case: Case, s: State) -> State:
    """The field shows the id that is asked for; a bitmap is answered only after its request came, too."""
    shown = s.asked if s.state == REQUESTED else 0
    if case.answer == "bitmap" and shown != s.requested:
        shown = 0
    if not s.answering and s.hand is None and shown != s.current:
        s = s._replace(dry=False)
    announced = s.announced if shown or s.answering else 0
    return s._replace(interrupt=False, current=shown, announced=announced)


def reaped(case: Case, s: State) -> State:
    """Used buffers come back. The one of a request goes into the queue again, and has the driver look."""
    kinds = s.kinds
    for what, value in s.used:
        if what == "hint" and case.holds == "until-used":
            kinds = put(kinds, value, LOOSE)
        if what == "request":
            s = posted(s, "request", 0)._replace(requested=value, interrupt=True)
    return s._replace(kinds=kinds, used=())


def begun(s: State) -> State:
    """A new answer begins; one that nobody asked for releases what the last one held, if all of that was reaped."""
    if s.current == s.announced and not in_flight(s):
        s = s._replace(kinds=tuple(FREE if kind in (HELD, LOOSE) else kind for kind in s.kinds))
    return s._replace(had_hint=False, walked=0)


def announced(case: Case, s: State) -> State:
    """The id that was looked at last goes into the queue."""
    return posted_id(case, s._replace(answering=True, announced=s.current), s.current)


def posted_id(case: Case, s: State, number: int) -> State:
    """An id, 0 for STOP, is made available: by value, or by reference to the one field that there is."""
    if case.start_buffer == "shared":
        return posted(s._replace(field=number), "reference", 0)
    return posted(s, "id", number)


def has_room(case: Case, s: State) -> bool:
    """There is memory for one bitmap."""
    return case.answer == "list" or "hint" not in in_flight(s)


def collected(case: Case, s: State) -> State:
    """Pages are picked; where nobody holds them, an answer walks through them once. A bitmap may be empty."""
    pick = can_collect(case, s)
    if not pick:
        return s._replace(dry=True) if case.answer == "list" else s._replace(hand=0)
    if case.holds == "nothing":
        return s._replace(hand=pick, hints=s.hints + 1, walked=2 * pick - 1 if case.answer == "list" else 0)
    return s._replace(hand=pick, hints=s.hints + 1, kinds=put(s.kinds, pick, HELD))


def queued(case: Case, s: State, pages: int) -> State:
    """The hint goes out; with `until-queued` its pages may be taken back from now on. There is one bitmap an answer."""
    kinds = put(s.kinds, pages, LOOSE) if case.holds == "until-queued" else s.kinds
    s = s._replace(hand=None, had_hint=pages > 0, kinds=kinds, dry=case.answer == "bitmap")
    return posted(s, "hint", pages)


def workload(case: Case, s: State) -> Iterator[tuple[str, State]]:
    """Writes and frees; on the driver's vCPU not between `collect` and `queue`."""
    if case.vcpus == 1 and s.hand is not None:
        return
    for page, kind in enumerate(s.kinds):
        bit = 1 << page
        if kind != HELD and s.writes < case.writes:
            version = s.writes + 1
            yield (
                f"write {page}",
                s._replace(
                    writes=version,
                    kinds=put(s.kinds, bit, USED),
                    written=put(s.written, bit, version),
                    source=put(s.source, bit, version),
                    dirty=s.dirty | bit if s.phase else 0,
                ),
            )
        if kind == USED and s.hints < case.hints:
            yield f"free {page}", s._replace(kinds=put(s.kinds, bit, FREE))
