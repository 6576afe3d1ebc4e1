"""What each strategy's row in the table teaches, in the order in which they were proposed."""

__all__ = ["LESSONS"]

LESSONS: dict[str, str] = {
    "none": "The baseline: nobody asks, so nothing can be lost but time.",
    "block-bulk": (
        "To wait for the whole answer, and to sync once more when the wait ends, makes the order harmless: what"
        " was written meanwhile is still in D and is merged after the hints were applied. It costs the wait. With"
        " the deferred log it fails, for a hint then clears D, too; and where a hint discards the page at the"
        " source, no order can help unless the guest waits."
    ),
    "filter-on-ready": (
        "The sync comes after the filter, so it looks as if nothing could be missed. But another sync may come"
        " between the guest's look at its free list and the filter: it moves the only record of a write from D,"
        " where the filter does not look, into M, where the filter erases it. Only a guest that does not touch a"
        " hinted page before its buffer was used makes it safe."
    ),
    "drain-in-exit-sync-first": (
        "A vCPU that is stopped in its exit writes nothing meanwhile; the others do, and so did all of them before"
        " it. To sync first is the worst order: whatever was written since the collection goes into M just before"
        " the filter erases it there."
    ),
    "drain-in-exit-filter-first": (
        "The other order leaves in D what was written since the last sync, and merges it afterwards. It does not"
        " help a record that an earlier sync has moved to M between the collection and the exit: the shortest loss"
        " is two acts longer, and there it is."
    ),
    "flush-after-sync": (
        "What lies in the ring at a sync is thrown away, under one lock. What was collected and not yet queued is"
        " not in the ring and comes through, older than the sync. With a guest that holds its pages until they are"
        " queued that is harmless, for nobody could write them; with one that holds nothing a page is lost."
    ),
    "ignore-late": (
        "One answer, which counts only while no sync has come since the request. Check and use are one step, so no"
        " sync can come between a collection and its use. The price is that only the first pass is spared."
    ),
    "ignore-late-unlocked": (
        "The same test without the lock. A sync falls between the check and the filter, and what was checked is over."
    ),
    "interval": (
        "A guest that answers by itself knows nothing of the host's syncs, and the host cannot tell an answer from"
        " before a sync from one after it."
    ),
    "resubmit": (
        "A standing answer is made anew when the last one was consumed, not after a sync: what lies in the queue"
        " may be older than the sync, and nothing says so."
    ),
    "host-timer": "As resubmit, and later: the longer an answer waits for the timer, the more syncs it has missed.",
    "command-id": (
        "The guest repeats the id that it was asked with, and the id moves on with each sync. So a hint that was"
        " collected before a sync stands behind an id that no longer counts. It rests on D keeping what was written"
        " since the sync: with the deferred log a hint clears D as well, and a page that the guest took back is"
        " lost. It rests also on a start buffer for each id, and on the id moving on after the sync and not before."
    ),
}
"""Strategy -> what can be learned from it."""
