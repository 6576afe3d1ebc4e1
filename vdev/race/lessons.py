"""What each strategy's row in the table teaches, in the order in which they were proposed."""

__all__ = ["LESSONS", "STRATEGIES"]

LESSONS: dict[str, str] = {
    "none": "The baseline: nobody asks, so nothing can be lost but time.",
    "block-bulk": (
        "To wait for the whole answer, and to sync once more when the wait ends, makes the order harmless:"
        " whatever was written meanwhile is merged after the hints were applied. It costs the wait, and a guest"
        " that says nothing costs all of it."
    ),
    "filter-on-ready": (
        "The sync comes after the filter, so it looks as if nothing could be missed. But another sync may come"
        " between the guest's look at its free list and the filter: that sync reads and clears the only record of a"
        " write, and the filter then takes the page out of M."
    ),
    "drain-in-exit-sync-first": (
        "A stopped vCPU can write nothing while its answer is handled; the others can. And the sync before the"
        " filter is the worst place for it: it moves the record of a write from D, where it was safe, into M, where"
        " the filter erases it."
    ),
    "drain-in-exit-filter-first": (
        "The other order keeps what is in D. It does not help a record that an earlier sync has moved to M between"
        " the collection and the exit."
    ),
    "flush-after-sync": (
        "Answers that lie in the ring at a sync are thrown away, under one lock. What the guest has collected but"
        " not yet queued is not in the ring, and comes through."
    ),
    "ignore-late": (
        "One answer, taken only while no sync has come since the request: the check and what is done on its ground"
        " are one step, so no sync can fall between a collection and its use. The price is that only the first pass"
        " is spared."
    ),
    "ignore-late-unlocked": (
        "The same test without the lock. A sync falls between the check and the filter, and the check was true of"
        " a moment that is over."
    ),
    "interval": (
        "A guest that answers by itself knows nothing of the host's syncs, so an answer can always be older than"
        " the last one."
    ),
    "resubmit": (
        "A standing buffer is refilled when it was consumed, not after a sync: the answer in it may be older than"
        " the sync."
    ),
    "host-timer": "As resubmit, and later: the longer an answer waits for the timer, the more syncs it has missed.",
    "command-id": (
        "The guest repeats the id that it was asked with, and the id moves on with each sync. So a hint that was"
        " collected before a sync carries an id that no longer counts."
    ),
}
"""Strategy -> what can be learned from it."""

STRATEGIES = tuple(LESSONS)
"""The names of all strategies."""
