"""An act in plain words, from what could be seen before and after it."""

from collections.abc import Callable, Iterable

from spec.balloon import FIRST_COMMAND_ID, CommandId
from vdev.race.combination import Combination
from vdev.race.steps import HintLife, Step

__all__ = ["describe_step", "name_id", "name_pages", "new_breaks", "say"]


def name_pages(pages: Iterable[int]) -> str:
    """Return "page 0", "pages 0 and 1", "pages 0, 1 and 2"."""
    names = [str(page) for page in sorted(set(pages))]
    if len(names) < 2:
        return f"page {names[0]}" if names else "no page"
    return f"pages {', '.join(names[:-1])} and {names[-1]}"


def name_id(value: int) -> str:
    """Return what the configuration shows in words: STOP, DONE, or "id 1" for the first that the host gives."""
    if value == CommandId.STOP:
        return "STOP"
    if value == CommandId.DONE:
        return "DONE"
    return f"id {value - FIRST_COMMAND_ID + 1 if value >= FIRST_COMMAND_ID else value}"


def describe_step(step: Step, combination: Combination) -> str:
    """Return a sentence for the step, that begins with who acts."""
    news = new_breaks(step)
    broken = f" [breaks {', '.join(news)}]" if news else ""
    return f"{step.moment.act.actor} {say(step, combination)}{broken}"


def say(step: Step, combination: Combination) -> str:
    """Return what the actor does, without its name."""
    act = step.moment.act
    words = _WORDS.get((act.actor.split(" ")[0], act.name))
    return words(step, combination) if words else act.name


def new_breaks(step: Step) -> list[str]:
    """Return the invariants that the act broke and the one before did not."""
    known = step.earlier.broken if step.earlier else ()
    return [name for name in step.moment.broken if name not in known]


def _changed(step: Step, field: str, old: object, new: object) -> list[int]:
    return [
        page
        for page, (before, after) in enumerate(zip(step.before, step.after, strict=True))
        if getattr(before, field) == old and getattr(after, field) == new
    ]


def _hints(lives: list[HintLife]) -> str:
    return name_pages(page for life in lives for page in life.pages)


def _shown(step: Step) -> str:
    return name_id(step.moment.shown_id)


def _asks(step: Step) -> str:
    """Say what the configuration tells the guest now, if it is news."""
    before = step.earlier.shown_id if step.earlier else CommandId.STOP
    if step.moment.shown_id == before:
        return ""
    if step.moment.shown_id == CommandId.DONE:
        return "; the guest is told DONE"
    if step.moment.shown_id == CommandId.STOP:
        return "; the guest is told STOP"
    return f"; it asks for free pages with {_shown(step)}"


def _merges(step: Step) -> str:
    merged = [page for page in _changed(step, "to_send", False, True) if step.before[page].dirty]
    cleared = [page for page in _changed(step, "dirty", True, False) if page not in merged]
    if merged:
        return (
            f"merges D into M: {name_pages(merged)} is to be sent again"
            if len(merged) == 1
            else (f"merges D into M: {name_pages(merged)} are to be sent again")
        )
    if cleared:
        return f"merges D into M: {name_pages(cleared)} had its bit in M already, the one in D is cleared"
    return "merges D into M: no new bits"


def _start(step: Step, _: Combination) -> str:
    return f"starts: the dirty log is on, M is all ones, the first sync is done{_asks(step)}"


def _look(step: Step, _: Combination) -> str:
    freed = _changed(step, "use", "held", "free")
    also = f", and gives {name_pages(freed)} back to the allocator" if freed else ""
    return f"reads the configuration: {_shown(step)}{also}"


def _reap(step: Step, combination: Combination) -> str:
    if combination.holds == "until-used":
        return "takes used buffers back; from now on their pages may be written again"
    return "takes used buffers back"


def _announce(step: Step, _: Combination) -> str:
    return "makes the id that it read available"


def _collect(step: Step, combination: Combination) -> str:
    if not step.came:
        return "looks for free pages and finds none"
    pages = _hints(step.came)
    many = len({page for life in step.came for page in life.pages}) > 1
    if combination.answer == "bitmap":
        return f"makes a bitmap of its free pages: {pages} {'are' if many else 'is'} free"
    if combination.holds == "nothing":
        return f"collects {pages}: free now, and not held"
    return f"collects {pages}: off the free list, held"


def _queue(step: Step, combination: Combination) -> str:
    if combination.answer == "bitmap":
        return f"makes the bitmap available ({_hints(step.moved)}), and kicks"
    return f"makes the hint for {_hints(step.moved)} available, and kicks"


def _end(step: Step, _: Combination) -> str:
    return "makes STOP available: that was all"


def _write(step: Step, _: Combination) -> str:
    page = step.moment.act.page or 0
    before, after = step.before[page], step.after[page]
    how = {"free": "allocates page {} and writes it", "held": "takes page {} back and writes it"}
    said = how.get(before.use, "writes page {}").format(page)
    logged = (
        "D is set" if after.dirty and not before.dirty else "D was set already" if after.dirty else "nobody logs it"
    )
    return f"{said}: version {after.source}, {logged}"


def _free(step: Step, _: Combination) -> str:
    return f"frees page {step.moment.act.page}: nobody needs its content any more"


def _effect(step: Step, pages: Iterable[int]) -> str:
    """Say what a hint did to M, D and the source."""
    wanted = set(pages)
    cleared = [page for page in _changed(step, "to_send", True, False) if page in wanted]
    unlogged = [page for page in _changed(step, "dirty", True, False) if page in wanted]
    destroyed = [page for page in wanted if step.before[page].source and not step.after[page].source]
    parts = []
    if cleared:
        parts.append(f"takes {name_pages(cleared)} out of M")
    if unlogged:
        parts.append(f"clears {name_pages(unlogged)} in the log")
    if destroyed:
        parts.append(f"discards {name_pages(destroyed)} at the source")
    return ", ".join(parts)


def _handle(step: Step, _: Combination) -> str:
    if not step.went:
        return f"takes what is in the queue, an id or STOP, and gives it back{_asks(step)}"
    pages = [page for life in step.went for page in life.pages]
    effect = _effect(step, pages)
    if effect:
        return f"pops the hint for {name_pages(pages)}, {effect}, and gives it back"
    return f"pops the hint for {name_pages(pages)}, and gives it back; M stays as it was"


def _pop(step: Step, _: Combination) -> str:
    return f"pops the hint for {_hints(step.moved)}" if step.moved else "pops an id or STOP"


def _check(step: Step, _: Combination) -> str:
    return "checks whether a sync has come since the request"


def _filter(step: Step, _: Combination) -> str:
    return _effect(step, range(len(step.after))) or "applies the hint: M is clear there already"


def _return(step: Step, _: Combination) -> str:
    return f"gives the buffer for {_hints(step.went)} back" if step.went else "gives the buffer back"


def _sync(step: Step, _: Combination) -> str:
    flushed = f", and gives the unread hint for {_hints(step.went)} back unapplied" if step.went else ""
    return f"{_merges(step)}{flushed}{_asks(step)}"


def _go_on(step: Step, combination: Combination) -> str:
    return f"waits for answers no longer, and {_sync(step, combination)}"


def _advance(step: Step, _: Combination) -> str:
    return f"moves the id on before the sync{_asks(step)}"


def _take(step: Step, combination: Combination) -> str:
    said = f"takes page {step.moment.act.page} out of M to send it"
    return f"{said}; its chunk of the log is cleared" if combination.dirty_log == "deferred-clear" else said


def _send(step: Step, _: Combination) -> str:
    page = step.moment.act.page or 0
    version = step.after[page].destination
    empty = "nothing is left of it" if step.after[page].wanted else "nobody has written it yet"
    has = f"the destination has version {version}" if version else empty
    return f"sends page {page}: {has}"


def _stop(step: Step, combination: Combination) -> str:
    return f"halts the vCPUs and {_sync(step, combination)}"


def _complete(step: Step, _: Combination) -> str:
    return "finds M empty: the guest would go on at the destination"


def _cancel(step: Step, _: Combination) -> str:
    return f"is told to give up{_asks(step)}"


_WORDS: dict[tuple[str, str], Callable[[Step, Combination], str]] = {
    ("vcpu", "look"): _look,
    ("vcpu", "reap"): _reap,
    ("vcpu", "announce"): _announce,
    ("vcpu", "collect"): _collect,
    ("vcpu", "queue"): _queue,
    ("vcpu", "end"): _end,
    ("vcpu", "write"): _write,
    ("vcpu", "free"): _free,
    ("handler", "handle"): _handle,
    ("handler", "pop"): _pop,
    ("handler", "check"): _check,
    ("handler", "filter"): _filter,
    ("handler", "sync"): _sync,
    ("handler", "return"): _return,
    ("migrator", "start"): _start,
    ("migrator", "go on"): _go_on,
    ("migrator", "advance"): _advance,
    ("migrator", "sync"): _sync,
    ("migrator", "take"): _take,
    ("migrator", "send"): _send,
    ("migrator", "stop"): _stop,
    ("migrator", "complete"): _complete,
    ("migrator", "cancel"): _cancel,
}
