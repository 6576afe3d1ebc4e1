"""Findings made by hand, for what is told and drawn of them."""

from dataclasses import replace

from vdev.race.combination import Bound, Combination
from vdev.race.verdict import Act, Finding, Hint, Moment, PageView, Verdict

FIRST_ID = 0x8000_0000


class Recorder:
    """Notes acts, and what each of them changed, as a finding."""

    def __init__(self, combination: Combination, bound: Bound) -> None:
        self.combination, self.bound = combination, bound
        self.pages = [PageView(False, False, 0, 0, 0, "free") for _ in range(bound.pages)]
        self.hints, self.shown_id, self.state, self.sync_count, self.moments = (), 0, "STOP", 0, []

    def act(self, actor, name, page=None, *, pages=None, hints=None, shown_id=None, state=None, syncs=0, broken=()):
        for number, changes in (pages or {}).items():
            self.pages[number] = replace(self.pages[number], **changes)
        self.hints = self.hints if hints is None else tuple(Hint(*hint) for hint in hints)
        self.shown_id = self.shown_id if shown_id is None else shown_id
        self.state, self.sync_count = state or self.state, self.sync_count + syncs
        act, pages = Act(actor, name, page), tuple(self.pages)
        self.moments.append(Moment(act, pages, self.hints, self.shown_id, self.state, self.sync_count, broken))

    def finding(self, lost=(), broken=None):
        return Finding(self.combination, self.bound, tuple(self.moments), lost, broken)


def loss_of_filter_on_ready():
    """A page is written, sent and written again while its hint waits; a sync comes before the filter."""
    r = Recorder(Combination("filter-on-ready"), Bound())
    r.act("migrator", "start", pages={0: {"to_send": True}}, shown_id=FIRST_ID, state="REQUESTED", syncs=1)
    r.act("vcpu 0", "look")
    r.act("vcpu 0", "announce")
    r.act("vcpu 0", "collect", pages={0: {"use": "held"}}, hints=[((0,), 1, "collected")])
    r.act("vcpu 0", "queue", hints=[((0,), 1, "queued")])
    r.act("vcpu 1", "write", 0, pages={0: {"use": "used", "dirty": True, "source": 1, "wanted": 1}})
    r.act("migrator", "take", 0, pages={0: {"to_send": False}})
    r.act("migrator", "send", 0, pages={0: {"destination": 1}})
    r.act("vcpu 1", "write", 0, pages={0: {"source": 2, "wanted": 2}})
    r.act("migrator", "sync", pages={0: {"dirty": False, "to_send": True}}, syncs=1)
    r.act("handler", "pop", hints=[((0,), 1, "popped")])
    broken = ("1 no-sync-between", "2 no-write-erased")
    r.act("handler", "filter", pages={0: {"to_send": False}}, broken=broken)
    r.act("handler", "sync")
    r.act("handler", "return", hints=[])
    r.act("migrator", "stop", syncs=1)
    r.act("migrator", "complete")
    return r.finding((0,))


def long_loss(act_count=40):
    """Three pages, several rounds, hints side by side; at the end a page is discarded at the source."""
    combination = Combination("command-id", dirty_log="deferred-clear", collects="before-announcing", effect="discard")
    r = Recorder(combination, Bound(3, 6, 6, 6))
    everything = {page: {"to_send": True, "dirty": True} for page in range(3)}
    r.act("migrator", "start", pages=everything, shown_id=FIRST_ID, state="REQUESTED", syncs=1)
    number = 1
    while len(r.moments) < act_count - 3:
        old, new = number, number + 1
        held = {0: {"use": "held"}, 2: {"use": "held"}}
        r.act("vcpu 0", "look")
        r.act("vcpu 0", "collect", pages=held, hints=[((0,), old, "collected"), ((2,), old, "collected")])
        r.act("vcpu 0", "announce")
        r.act("vcpu 0", "queue", hints=[((0,), old, "queued"), ((2,), old, "collected")])
        r.act("vcpu 1", "write", 1, pages={1: {"use": "used", "dirty": True, "source": number, "wanted": number}})
        r.act("vcpu 0", "queue", hints=[((0,), old, "queued"), ((2,), old, "queued")])
        cleared = {0: {"to_send": False, "dirty": False}, 2: {"to_send": False}}
        r.act("handler", "handle", pages=cleared, hints=[], state="START", shown_id=0)
        r.act("vcpu 1", "write", 2, pages={2: {"use": "used", "dirty": True, "source": number, "wanted": number}})
        r.act("migrator", "take", 1, pages={1: {"to_send": False, "dirty": False}})
        r.act("migrator", "send", 1, pages={1: {"destination": number}})
        r.act("vcpu 0", "end")
        again = {0: {"to_send": True, "use": "free"}, 2: {"to_send": True, "use": "free"}}
        r.act("migrator", "sync", pages=again, syncs=1, shown_id=FIRST_ID + number, state="REQUESTED")
        number = new
    r.act("vcpu 1", "write", 2, pages={2: {"use": "used", "dirty": True, "source": 9, "wanted": 9}})
    gone = {2: {"to_send": False, "dirty": False, "source": 0}}
    r.act("handler", "handle", pages=gone, broken=("8 source-untouched",))
    r.act("migrator", "complete", state="DONE", shown_id=1)
    return r.finding((2,))


def verdict_of(finding, **changes):
    """A verdict with this finding as its loss."""
    values = {"mode": "exhaustive", "state_count": 1234, "transition_count": 3456, "seconds": 0.25, "complete": True}
    loss = finding if finding.lost else None
    return Verdict(finding.combination, finding.bound, **(values | {"loss": loss} | changes))
