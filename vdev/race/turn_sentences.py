"""A turn in plain words: what matters of a run of acts of one actor, and which acts they were."""

from collections.abc import Iterator, Sequence

from vdev.race.combination import Combination
from vdev.race.sentences import describe_step, name_id, name_pages, new_breaks, say
from vdev.race.steps import HintLife, Step
from vdev.race.turns import Turn

__all__ = ["describe_turn"]

_ANSWERING = ("look", "reap", "announce", "collect", "queue", "end")


def describe_turn(turn: Turn, combination: Combination) -> str:
    """Return a sentence or two for the turn, that begin with who acts and end with the acts' names.

    A turn of one act is told as that act.
    """
    if len(turn.steps) == 1:
        return describe_step(turn.steps[0], combination)
    news = [name for step in turn.steps for name in new_breaks(step)]
    broken = f" [breaks {', '.join(news)}]" if news else ""
    acts = ", ".join(_name(step) for step in turn.steps)
    return f"{turn.actor} {_join(_phrases(turn.steps, combination))}{broken} ({acts})"


def _name(step: Step) -> str:
    act = step.moment.act
    return act.name if act.page is None else f"{act.name} {act.page}"


def _join(phrases: Iterator[str]) -> str:
    """Go on within the sentence as long as it is a simple one."""
    said = next(phrases)
    is_simple = ":" not in said
    for phrase in phrases:
        said += f", then {phrase}" if is_simple else f". It {phrase}"
        is_simple = ":" not in phrase
    return said


def _phrases(steps: Sequence[Step], combination: Combination) -> Iterator[str]:
    """Yield a phrase for each answer, for each page that is sent, and for each act that is neither."""
    place = 0
    while place < len(steps):
        count = _answer_length(steps[place:])
        if count > 1:
            yield _answer(steps[place : place + count], combination)
        elif _is_sent_at_once(steps[place : place + 2]):
            count = 2
            clears = " and clears its chunk of the log" if combination.dirty_log == "deferred-clear" else ""
            page, colon, what = say(steps[place + 1], combination).partition(":")
            yield f"{page}{clears}{colon}{what}"
        else:
            count = 1
            yield say(steps[place], combination)
        place += count


def _is_sent_at_once(steps: Sequence[Step]) -> bool:
    return [step.moment.act.name for step in steps] == ["take", "send"]


def _answer_length(steps: Sequence[Step]) -> int:
    """Return how many acts of the driver belong together: what it reads, and what it does on that ground."""
    seen: list[str] = []
    for step in steps:
        name = step.moment.act.name
        begins = (name == "reap" and seen) or (name == "look" and set(seen) - {"reap"}) or name in seen
        if name not in _ANSWERING or (begins and name not in ("collect", "queue")):
            break
        seen.append(name)
    return len(seen)


def _answer(steps: Sequence[Step], combination: Combination) -> str:
    names = [step.moment.act.name for step in steps]
    queued = [life for step in steps if step.moment.act.name == "queue" for life in step.moved]
    parts = []
    for step in steps:
        name = step.moment.act.name
        if name == "announce" and not queued:
            parts.append("announces that id" if "look" in names else "announces the id that it read")
        elif name == "end":
            parts.append("says STOP")
        elif name == "look":
            parts.append(_look(step))
        elif name == "reap":
            parts.append("takes used buffers back")
        elif name == "collect" and (waiting := [life for life in step.came if life not in queued]):
            parts.append(f"collects {_pages(waiting)} ({_held(combination)})")
        elif name == "collect" and not step.came:
            parts.append("finds no free page")
    if queued:
        parts.append(_hinted(steps, queued, combination))
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if parts[:-1] else parts[0]


def _look(step: Step) -> str:
    freed = [page for page, view in enumerate(step.before) if (view.use, step.after[page].use) == ("held", "free")]
    also = f", gives {name_pages(freed)} back" if freed else ""
    return f"reads {name_id(step.moment.shown_id)}{also}"


def _hinted(steps: Sequence[Step], queued: Sequence[HintLife], combination: Combination) -> str:
    """Say what is made available; where it was collected in an earlier turn, that."""
    pages = sorted({page for life in queued for page in life.pages})
    verb = "answers" if any(step.moment.act.name == "announce" for step in steps) else "hints"
    by = " with a bitmap" if combination.answer == "bitmap" else ""
    if any(life.collected_at < steps[0].number for life in queued):
        return (
            f"{verb}{by}: {name_pages(pages)} was free when it was collected"
            if len(pages) == 1
            else (f"{verb}{by}: {name_pages(pages)} were free when they were collected")
        )
    return f"{verb}{by}: {name_pages(pages)} {'are' if len(pages) > 1 else 'is'} free, {_held(combination)}"


def _held(combination: Combination) -> str:
    return "not held" if combination.holds == "nothing" else "held from now on"


def _pages(lives: Sequence[HintLife]) -> str:
    return name_pages(page for life in lives for page in life.pages)
