"""What changes from one moment of a finding to the next: which hints came and went, and which act was fatal."""

from dataclasses import dataclass, field

from vdev.race.verdict import Finding, Hint, Moment, PageView

__all__ = ["HintLife", "Step", "letter", "steps_of"]

_NEVER_TOUCHED = PageView(to_send=False, dirty=False, source=0, destination=0, wanted=0, use="free")
_WAY = ("collected", "queued", "popped")


@dataclass
class HintLife:
    """A hint from its collection to its return.

    `where` has, for each step that it lives through, its place then. `ended_at` is the number of the step in which it
    was given back, None if it still was outstanding at the end. `number` counts the hints from 0.
    """

    number: int
    pages: tuple[int, ...]
    collected_at_sync: int
    collected_at: int
    where: dict[int, str] = field(default_factory=dict)
    ended_at: int | None = None

    @property
    def queued_at(self) -> int | None:
        """The number of the step that made it available, None for never."""
        return next((step for step, where in self.where.items() if where != "collected"), None)


@dataclass
class Step:
    """One act with what it changed: `before` and `after` have a view for each page.

    `came`, `moved` and `went` are hints that were collected, went on to their next place, and were given back;
    `in_hand` are the popped ones that stay.
    """

    number: int
    moment: Moment
    before: tuple[PageView, ...]
    earlier: Moment | None
    came: list[HintLife] = field(default_factory=list)
    moved: list[HintLife] = field(default_factory=list)
    went: list[HintLife] = field(default_factory=list)
    in_hand: list[HintLife] = field(default_factory=list)
    is_fatal: bool = False
    is_lost_write: bool = False

    @property
    def after(self) -> tuple[PageView, ...]:
        """What the act left."""
        return self.moment.pages

    def hint_for(self, page: int) -> HintLife | None:
        """Return the hint for `page` that the act used, None for none."""
        return next((life for life in [*self.went, *self.in_hand] if page in life.pages), None)


def letter(number: int) -> str:
    """Return a, b, ... z, aa, ab for 0, 1, ...

    >>> letter(0), letter(25), letter(26), letter(51), letter(52)
    ('a', 'z', 'aa', 'az', 'ba')
    """
    rest, last = divmod(number, 26)
    return (letter(rest - 1) if rest else "") + chr(ord("a") + last)


def steps_of(finding: Finding) -> list[Step]:
    """Return the finding's steps, the fatal one and the write that was lost marked."""
    steps: list[Step] = []
    alive: list[HintLife] = []
    earlier: Moment | None = None
    born = 0
    for number, moment in enumerate(finding.moments):
        before = earlier.pages if earlier else (_NEVER_TOUCHED,) * len(moment.pages)
        step = Step(number, moment, before, earlier)
        alive, born = _follow_hints(step, alive, born)
        steps.append(step)
        earlier = moment
    for page in finding.lost:
        _mark_loss(steps, page)
    if finding.broken is not None and steps:
        steps[-1].is_fatal = True
    return steps


def _follow_hints(step: Step, alive: list[HintLife], born: int) -> tuple[list[HintLife], int]:
    """Match the hints of this moment to those of the one before. They are used in order: the oldest goes first."""
    waiting = list(alive)
    following: list[HintLife] = []
    collecting = step.moment.act.name == "collect"
    for hint in step.moment.hints if collecting else reversed(step.moment.hints):
        ages = range(len(waiting)) if collecting else reversed(range(len(waiting)))
        place = next((place for place in ages if _goes_on_as(waiting[place], hint)), None)
        if place is None:
            life = HintLife(born, hint.pages, hint.collected_at_sync, step.number)
            born += 1
            step.came.append(life)
        else:
            life = waiting.pop(place)
            if life.where[step.number - 1] != hint.where:
                step.moved.append(life)
        life.where[step.number] = hint.where
        following.append(life)
    for life in waiting:
        life.ended_at = step.number
    step.went = waiting
    step.in_hand = [life for life in following if life.where[step.number] == "popped"]
    return sorted(following, key=lambda life: life.number), born


def _goes_on_as(life: HintLife, hint: Hint) -> bool:
    last = next(reversed(life.where.values()))
    if (life.pages, life.collected_at_sync) != (hint.pages, hint.collected_at_sync):
        return False
    return last == hint.where or (last in _WAY and hint.where in _WAY and _WAY.index(last) < _WAY.index(hint.where))


def _mark_loss(steps: list[Step], page: int) -> None:
    """Mark the write of which the destination never learned, and the act that erased the last trace of it."""
    write = next((s for s in reversed(steps) if s.moment.act.name == "write" and s.moment.act.page == page), None)
    if write is None:
        return
    write.is_lost_write = True
    later = [step for step in steps[write.number + 1 :] if _erases(step, page)]
    if later:
        later[-1].is_fatal = True


def _erases(step: Step, page: int) -> bool:
    """Whether the act took the page from M and D without sending it, or destroyed it at the source."""
    before, after = step.before[page], step.after[page]
    forgotten = (before.to_send or before.dirty) and not (after.to_send or after.dirty)
    destroyed = before.source != after.source
    return (forgotten and step.moment.act.name != "take") or destroyed
