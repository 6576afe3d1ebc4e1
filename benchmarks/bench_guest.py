"""How fast the guest is: operations, warm-up, verification, the allocator.

python benchmarks/bench_guest.py --size 1024 --operations 5000
"""

import argparse
import json
import time

from guest_agent.kernel import Guest, GuestConfig
from guest_agent.page_database import Owner
from vdev.memory import GuestMemory, PageMarks

NO_EXITS = None


def seconds(function, *arguments):
    begin = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - begin, result


def fresh_memory(size, *, touched):
    """RAM of `size` bytes; `touched` has it faulted in, so that the operating system's part is not measured."""
    memory = GuestMemory.private(size)
    memory.page_marks = PageMarks(memory.page_count)
    if touched:
        for live, _, _ in memory.page_spans(0, memory.page_count):
            live[:, 0] = 1
            live[:, 0] = 0
    return memory


def bench_workload(name, size, files, operations):
    gib = size / (1 << 30)
    config = GuestConfig(workload=name, files=files, rate=1e9)
    cold, _ = seconds(Guest.boot, fresh_memory(size, touched=False), NO_EXITS, config)
    memory = fresh_memory(size, touched=True)
    warm, guest = seconds(Guest.boot, memory, NO_EXITS, config)
    longest = total = 0.0
    for _ in range(operations):
        spent, _ = seconds(guest.step, total)
        longest, total = max(longest, spent), total + spent
    verifying, verdict = seconds(guest.verify)
    saving, state = seconds(guest.save)
    restoring, _ = seconds(Guest.restore, memory, NO_EXITS, state)
    return {
        "workload": name,
        "boot and warm-up, s/GiB": round(warm / gib, 3),
        "the same with page faults, s/GiB": round(cold / gib, 3),
        "operations/s": round(guest.operation_count / total),
        "longest operation, ms": round(longest * 1e3, 2),
        "pages checked": verdict.pages,
        "verify, s/GiB of RAM": round(verifying / gib, 3),
        "mismatched": verdict.mismatched,
        "save, ms": round(saving * 1e3, 3),
        "restore, ms": round(restoring * 1e3, 3),
        "vCPU state, bytes": len(state),
    }


def bench_allocator(size):
    guest = Guest.boot(fresh_memory(size, touched=True), NO_EXITS, GuestConfig(workload="idle", warm_up=False))
    allocator = guest.allocator
    rounds = 20_000
    begin = time.perf_counter()
    for _ in range(rounds):
        allocator.free(allocator.allocate(0, Owner.WORKLOAD))
    single = (time.perf_counter() - begin) / rounds
    taking, blocks = seconds(allocator.take_free_blocks, 10, 256, Owner.HINTED)
    releasing, _ = seconds(allocator.free_blocks, blocks)
    bulk, pages = seconds(allocator.allocate_pages, allocator.free_page_count, Owner.WORKLOAD)
    returning, _ = seconds(allocator.free_pages, pages)
    return {
        "allocate and free one page, us": round(single * 1e6, 2),
        f"take {len(blocks)} blocks of 4 MiB, ms": round(taking * 1e3, 3),
        f"free {len(blocks)} blocks of 4 MiB, ms": round(releasing * 1e3, 3),
        "allocate single pages in bulk, ns/page": round(bulk / len(pages) * 1e9, 1),
        "free single pages in bulk, ns/page": round(returning / len(pages) * 1e9, 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024, help="guest RAM, MiB")
    parser.add_argument("--operations", type=int, default=5000)
    parser.add_argument("--files", default="/usr/lib", help="directory for the workload 'files'")
    arguments = parser.parse_args()
    size = arguments.size << 20
    for name in ("idle", "churn", "files"):
        print(json.dumps(bench_workload(name, size, arguments.files, arguments.operations), indent=2))
    print(json.dumps(bench_allocator(size), indent=2))


if __name__ == "__main__":
    main()
