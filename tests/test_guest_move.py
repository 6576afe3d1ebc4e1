"""A guest that is stopped, moved as bytes, and started again goes on, and finds what was lost on the way."""

import json
import shutil

import numpy as np
import pytest
from guest_setup import ODD_REGIONS, copy_of, memory_of, pages_of

from guest_agent.errors import GuestCorruption
from guest_agent.kernel import Guest, GuestConfig
from guest_agent.page_database import Owner
from guest_agent.vcpu_state import VcpuState, VcpuStateBroken
from guest_agent.workload import WORKLOADS
from vdev.events import EventStream, GuestVerified
from vdev.memory import PAGE_SIZE

WORKLOAD_NAMES = tuple(WORKLOADS)


@pytest.fixture
def directory(tmp_path):
    random = np.random.default_rng(8)
    where = tmp_path / "data"
    where.mkdir()
    for number, size in enumerate([10, 5000, 40_000, 700_000]):
        (where / str(number)).write_bytes(random.bytes(size))
    return where


def boot(workload="churn", directory=None, seed=0, memory=None, **options):
    memory = memory or memory_of((0, 2048 + 33), marks=True)
    config = GuestConfig(workload=workload, files=str(directory) if directory else None, seed=seed, rate=1e6, **options)
    return Guest.boot(memory, None, config), memory


def run(guest, operations):
    for _ in range(operations):
        guest.workload.step(guest._random)
        guest.operation_count += 1


@pytest.mark.parametrize("workload", WORKLOAD_NAMES)
def test_a_copy_of_ram_and_the_vcpu_state_are_the_whole_guest(workload, directory):
    guest, memory = boot(workload, directory)
    run(guest, 100)
    moved = Guest.restore(copy_of(memory), None, guest.save())
    assert moved.verify() == guest.verify()
    assert moved.operation_count == guest.operation_count
    run(moved, 200)
    assert moved.verify().mismatched == 0
    assert moved.resumed_operations == moved.verify().resumed_operations == 200
    assert moved.verify().operation_count == moved.operation_count > 200


@pytest.mark.parametrize("workload", ["idle", "churn"])
@pytest.mark.parametrize("regions", [((0, 3000),), ODD_REGIONS])
def test_a_moved_guest_does_what_it_would_have_done_in_its_place(workload, regions):
    guest, memory = boot(workload, memory=memory_of(*regions))
    run(guest, 150)
    destination = copy_of(memory)
    moved = Guest.restore(destination, None, guest.save())
    run(guest, 150)
    run(moved, 150)
    assert (pages_of(memory) == pages_of(destination)).all()
    assert moved._boot.ram.digest == guest._boot.ram.digest


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("poison_value", [None, 0xA5A5_5A5A])
@pytest.mark.parametrize("workload", WORKLOAD_NAMES)
def test_no_store_goes_unmarked(workload, poison_value, seed, directory):
    guest, memory = boot(workload, directory, seed, poison_value=poison_value, warm_up=bool(seed % 2))
    destination = copy_of(memory)
    for _ in range(4):
        memory.page_marks.marks[:] = 0
        run(guest, 40)
        _disturb(guest, seed)
        for page in np.flatnonzero(memory.page_marks.marks).tolist():
            destination.write(destination.address_of(page), memory.read(memory.address_of(page), PAGE_SIZE))
    differing = np.flatnonzero((pages_of(memory) != pages_of(destination)).any(axis=1))
    assert differing.tolist() == []
    moved = Guest.restore(destination, None, guest.save())
    assert moved.verify().first_bad == ()


def _disturb(guest, seed):
    """What drivers do to the allocator while a workload runs."""
    held = guest.allocator.take_free_blocks(3, 20, Owner.HINTED)
    singles = guest.allocator.allocate_pages(30, Owner.BALLOON)
    guest.allocator.set_owner(held[:2], Owner.REPORTED)
    guest.allocator.free_blocks(held[seed % 3 :])
    guest.allocator.free_pages(singles[seed % 5 :])


def test_marks_of_the_warm_up_and_of_booting_are_complete(directory):
    for workload in WORKLOAD_NAMES:
        memory = memory_of(*ODD_REGIONS, marks=True)
        boot(workload, directory, memory=memory)
        unmarked = memory.page_marks.marks == 0
        assert not pages_of(memory)[unmarked].any()


def test_a_files_guest_goes_on_without_its_directory(directory):
    guest, memory = boot("files", directory)
    run(guest, 50)
    shutil.rmtree(directory)
    moved = Guest.restore(copy_of(memory), None, guest.save())
    before = moved.objects.page_count
    assert moved.verify().mismatched == 0
    assert before > 0
    run(moved, 300)
    assert moved.verify().mismatched == 0
    assert moved.objects.page_count < before


def test_a_file_that_was_being_read_when_the_guest_moved_is_read_on(directory):
    guest, memory = boot("files", directory, warm_up=False)
    for _ in range(100):
        if _is_reading(guest):
            break
        run(guest, 1)
    row, size = guest.objects.count - 1, guest.objects.size_of(guest.objects.count - 1)
    moved = Guest.restore(copy_of(memory), None, guest.save())
    run(moved, 1)
    assert moved.objects.size_of(row) > size
    assert moved.verify().mismatched == 0


def _is_reading(guest):
    return guest.objects.count and guest.objects.tag_of(guest.objects.count - 1) >> 31


class TestVerifyFinds:
    """Each way in which a move could lose or mix up a page."""

    def guest(self, seed=1):
        guest, memory = boot("churn", seed=seed)
        run(guest, 60)
        assert guest.verify().mismatched == 0
        return guest, memory

    def data_pages(self, guest, count=2):
        heads, _ = guest.allocator.blocks_of(Owner.WORKLOAD)
        return heads[np.random.default_rng(4).permutation(len(heads))[:count]].tolist()

    def verdict(self, guest, memory, damage):
        """The verdict of the guest restored on a damaged copy of its RAM."""
        destination = copy_of(memory)
        damage(destination)
        return Guest.restore(destination, None, guest.save()).verify()

    @pytest.mark.parametrize("offset", [0, 1, 2047, 4095])
    def test_one_flipped_bit(self, offset):
        guest, memory = self.guest()
        (page,) = self.data_pages(guest, 1)

        def flip(destination):
            destination.bytes_view(destination.address_of(page), PAGE_SIZE)[offset] ^= 0x80

        verdict = self.verdict(guest, memory, flip)
        assert verdict.mismatched == 1
        assert verdict.first_bad == (
            f"page {page}: other content where WORKLOAD wrote version {self.version(guest, page)}",
        )
        assert verdict.digest_ok

    def version(self, guest, page):
        return guest.allocator.database.version[page]

    def test_a_zeroed_page(self):
        guest, memory = self.guest()
        (page,) = self.data_pages(guest, 1)
        verdict = self.verdict(guest, memory, lambda ram: ram.write(ram.address_of(page), bytes(PAGE_SIZE)))
        assert verdict.mismatched == 1
        assert f"page {page}: all zero where WORKLOAD wrote" in verdict.first_bad[0]

    def test_two_swapped_pages(self):
        guest, memory = self.guest()
        a, b = self.data_pages(guest)

        def swap(destination):
            for at, source in ((a, b), (b, a)):
                destination.write(destination.address_of(at), memory.read(memory.address_of(source), PAGE_SIZE))

        assert self.verdict(guest, memory, swap).mismatched == 2

    def test_the_previous_version_of_any_page_that_matters(self):
        """Every page that was written since an earlier moment, one at a time: data, page database, object table,
        boot page. Free pages may be old: nobody relies on them.
        """
        guest, memory = self.guest()
        earlier = copy_of(memory)
        run(guest, 25)
        free = np.repeat(*self.owner_runs(guest)) == Owner.FREE
        changed = np.flatnonzero((pages_of(memory) != pages_of(earlier)).any(axis=1))
        reserved = sum(end - first for first, end in guest._boot.reserved_ranges())
        assert {page for page in changed.tolist() if page < reserved} >= {0, 1}
        for page in changed.tolist():
            old = earlier.read(earlier.address_of(page), PAGE_SIZE)
            verdict = self.verdict(guest, memory, lambda ram, p=page, old=old: ram.write(ram.address_of(p), old))
            assert bool(verdict.mismatched) is not bool(free[page]), f"page {page}: {verdict}"

    def owner_runs(self, guest):
        pages, orders = guest.allocator.database.blocks()
        return guest.allocator.database.owner.take(pages), 1 << orders

    def test_a_stale_data_page_together_with_its_stale_database_page(self):
        guest, memory = self.guest()
        (page,) = self.data_pages(guest, 1)
        database = memory.page_of(guest._boot["database_address"]) + page * 32 // PAGE_SIZE
        earlier = copy_of(memory)
        guest._pages.generate(np.array([page]), Owner.WORKLOAD)

        def lose_both(destination):
            for lost in (page, database):
                destination.write(destination.address_of(lost), earlier.read(earlier.address_of(lost), PAGE_SIZE))

        verdict = self.verdict(guest, memory, lose_both)
        assert not verdict.digest_ok
        assert verdict.mismatched == 1
        assert verdict.first_bad == ("the tables in guest RAM are not what the vCPU left",)

    def test_all_of_ram_as_it_was_before_the_last_operation(self):
        guest, memory = self.guest()
        earlier = copy_of(memory)
        run(guest, 1)
        verdict = Guest.restore(earlier, None, guest.save()).verify()
        assert verdict.mismatched >= 1
        assert not verdict.digest_ok

    def test_any_table_page_that_reads_as_zero(self):
        guest, memory = self.guest()
        for first, end in guest._boot.reserved_ranges():
            for page in range(max(first, 1), end):
                if memory.bytes_view(memory.address_of(page), PAGE_SIZE).any():
                    verdict = self.verdict(
                        guest, memory, lambda ram, p=page: ram.write(ram.address_of(p), bytes(PAGE_SIZE))
                    )
                    assert verdict.mismatched, f"page {page}"

    def test_random_bytes_in_any_table_page_give_a_verdict_and_not_a_crash(self):
        guest, memory = self.guest()
        random = np.random.default_rng(6)
        for first, end in guest._boot.reserved_ranges():
            for page in range(max(first, 1), end):
                noise = random.bytes(PAGE_SIZE)
                verdict = self.verdict(guest, memory, lambda ram, p=page, n=noise: ram.write(ram.address_of(p), n))
                assert verdict.mismatched, f"page {page}"
                assert verdict.first_bad

    def test_a_lost_boot_page_is_found_before_anything_runs(self):
        guest, memory = self.guest()
        with pytest.raises(GuestCorruption, match="page 0: no boot page"):
            self.verdict(guest, memory, lambda ram: ram.write(ram.address_of(0), bytes(PAGE_SIZE)))

    def test_nothing_in_pages_that_nobody_relies_on(self):
        guest, memory = self.guest()
        guest.allocator.take_free_blocks(2, 5, Owner.HINTED)
        guest.allocator.allocate_pages(5, Owner.BALLOON)
        free = guest.allocator.blocks_of(Owner.FREE, Owner.HINTED, Owner.BALLOON)

        def lose(destination):
            for page, order in zip(*map(np.ndarray.tolist, free), strict=True):
                destination.write(destination.address_of(page), bytes(PAGE_SIZE << order))

        assert self.verdict(guest, memory, lose).mismatched == 0

    def test_but_with_poison_free_pages_count(self):
        guest, memory = boot("churn", poison_value=0x1111_1111)
        page = int(guest.allocator.blocks_of(Owner.FREE).pages[0])
        verdict = self.verdict(guest, memory, lambda ram: ram.write(ram.address_of(page), bytes(PAGE_SIZE)))
        assert verdict.mismatched == 1
        assert "poison" in verdict.first_bad[0]

    def test_and_a_guest_that_runs_on_such_tables_says_so_by_name(self):
        """Whatever a broken table makes the guest do, it is the guest's own error that comes out."""
        guest, memory = self.guest()
        random = np.random.default_rng(9)
        named = 0
        for first, end in guest._boot.reserved_ranges():
            for page in range(max(first, 1), end):
                destination = copy_of(memory)
                destination.write(destination.address_of(page), random.bytes(PAGE_SIZE))
                moved = Guest.restore(destination, None, guest.save())
                try:
                    run(moved, 30)
                except GuestCorruption:
                    named += 1
        assert named > 5

    def test_it_tells_who_listens(self):
        guest, memory = self.guest()
        stream = EventStream(lambda: 0.0)
        seen = []
        stream.subscribe(lambda record: seen.append(record.event))
        moved = Guest.restore(copy_of(memory), None, guest.save(), stream.emitter("guest"))
        verdict = moved.verify()
        assert seen == [GuestVerified(verdict.pages, 0)]

    def test_the_verdict_is_json(self):
        guest, _ = self.guest()
        verdict = json.loads(json.dumps(guest.verify_json()))
        counts = {"pages", "mismatched", "resumed_operations", "operation_count"}
        assert set(verdict) == counts | {"first_bad", "digest_ok"}


class TestVcpuState:
    def state(self, **changes):
        guest, _ = boot("idle")
        return json.dumps({**json.loads(guest.save()), **changes}).encode()

    def test_it_is_small_and_says_its_format(self):
        guest, _ = boot("churn")
        assert len(guest.save()) < 1000
        assert json.loads(guest.save())["format"] == 2

    def test_it_reads_back(self):
        guest, _ = boot("churn")
        state = guest.save()
        assert VcpuState.from_bytes(state).to_bytes() == state

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"format": 1}, "not of format 2"),
            ({"digest": -1}, "out of range"),
            ({"digest": "7"}, "digest = '7'"),
            ({"operation_count": True}, "operation_count = True"),
            ({"delay": float("nan")}, "out of range"),
            ({"extra": 1}, "does not know extra"),
            ({"config": {"workload": "sleep"}}, "no workload 'sleep'"),
            ({"config": {"colour": 1}}, "no setting colour"),
            ({"random": {}}, "random generator"),
            ({"random": {"bit_generator": "PCG64", "state": {"state": "x", "inc": 1}}}, "random generator"),
        ],
    )
    def test_one_that_makes_no_sense_is_refused(self, changes, message):
        memory = memory_of((0, 600))
        boot("idle", memory=memory)
        with pytest.raises(VcpuStateBroken, match=message):
            Guest.restore(memory, None, self.state(**changes))

    @pytest.mark.parametrize("data", [b"", b"\xff\xff", b"{", b"[]", b"3"])
    def test_bytes_that_are_no_state_are_refused(self, data):
        with pytest.raises(VcpuStateBroken):
            VcpuState.from_bytes(data)
