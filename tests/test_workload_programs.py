"""What the workloads do with memory: water marks, bounded operations, stale data in free pages."""

import os
import shutil

import numpy as np
import pytest
from guest_setup import ODD_REGIONS, memory_of, pages_of

from guest_agent.kernel import Guest, GuestConfig
from guest_agent.page_database import Owner
from guest_agent.workload import WORKLOADS
from guest_agent.workload.file_catalogue import FileCatalogue
from vdev.errors import UserError
from vdev.memory import PAGE_SIZE, GuestMemory

MIB = 1 << 20
NO_EXITS = None


@pytest.fixture
def directory(tmp_path):
    """Files of sizes around a page and around a part, some in a subdirectory, a few that are not to be read."""
    random = np.random.default_rng(5)
    (tmp_path / "sub").mkdir()
    sizes = [0, 1, 4095, 4096, 4097, 70_000, 300_000, 5 * MIB + 17]
    for number, size in enumerate(sizes):
        where = tmp_path / "sub" if number % 2 else tmp_path
        (where / f"{number:02}").write_bytes(random.bytes(size))
    (tmp_path / "link").symlink_to(tmp_path / "07")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def guest_of(workload, size=16 * MIB, directory=None, memory=None, **options):
    config = GuestConfig(workload=workload, files=str(directory) if directory else None, rate=1e6, **options)
    return Guest.boot(memory or GuestMemory.private(size), NO_EXITS, config)


def run(guest, operations):
    for _ in range(operations):
        guest.workload.step(guest._random)


def used_part(guest):
    return guest.objects.page_count / guest.objects.ram_page_count


def free_pages_of(guest):
    heads, orders = guest.allocator.blocks_of(Owner.FREE)
    pages = np.concatenate([np.arange(head, head + (1 << order)) for head, order in zip(heads, orders, strict=True)])
    return pages_of(guest.objects.pages.ram.memory)[pages]


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("size", [2 * MIB, 3 * MIB + 5 * PAGE_SIZE, 32 * MIB + 77 * PAGE_SIZE])
@pytest.mark.parametrize("warm_up", [True, False])
def test_it_runs_and_the_guest_finds_nothing_wrong(workload, size, warm_up, directory):
    guest = guest_of(workload, size, directory, warm_up=warm_up)
    run(guest, 300)
    verdict = guest.verify()
    assert (verdict.mismatched, verdict.first_bad, verdict.digest_ok) == (0, (), True)
    assert verdict.pages == guest.objects.page_count > 0


@pytest.mark.parametrize("workload", WORKLOADS)
def test_it_runs_on_ram_of_odd_regions(workload, directory):
    guest = guest_of(workload, directory=directory, memory=memory_of(*ODD_REGIONS))
    run(guest, 300)
    assert guest.verify().mismatched == 0


@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_same_seed_gives_the_same_guest(workload, directory):
    guests = [guest_of(workload, directory=directory, seed=3) for _ in range(2)]
    for guest in guests:
        run(guest, 200)
    first, second = (pages_of(guest.objects.pages.ram.memory) for guest in guests)
    assert (first == second).all()
    assert guests[0].save() == guests[1].save()


def test_another_seed_gives_another_guest():
    digests = set()
    for seed in range(3):
        guest = guest_of("churn", seed=seed)
        run(guest, 10)
        digests.add(guest.objects.pages.ram.digest)
    assert len(digests) == 3


@pytest.mark.parametrize("workload", ["churn", "files"])
def test_usage_stays_between_the_water_marks(workload, directory):
    guest = guest_of(workload, 64 * MIB, directory)
    low, high = guest.config.low_water, guest.config.high_water
    seen = []
    for _ in range(60):
        run(guest, 25)
        seen.append(used_part(guest))
    assert low - 0.03 < min(seen)
    assert max(seen) < high + 0.07
    assert max(seen) > min(seen)


@pytest.mark.parametrize("workload", WORKLOADS)
def test_after_the_warm_up_free_pages_hold_stale_data(workload, directory):
    guest = guest_of(workload, 64 * MIB, directory)
    written = free_pages_of(guest).any(axis=1).mean()
    target = guest.config.full_water - used_part(guest)
    assert written > 0.5 * target
    assert guest.allocator.free_block_counts()[10] > 0


def test_without_a_warm_up_a_churning_guest_begins_empty():
    assert guest_of("churn", warm_up=False).objects.count == 0


def test_churn_allocates_blocks_of_several_orders_and_single_pages():
    guest = guest_of("churn", 128 * MIB)
    orders = set()
    for _ in range(150):
        run(guest, 20)
        orders |= set(guest.allocator.blocks_of(Owner.WORKLOAD).orders.tolist())
    assert orders == {0, 1, 2, 3, 4, 10}


def test_churn_frees_something_when_memory_is_short():
    guest = guest_of("churn", 4 * MIB, warm_up=False)
    guest.allocator.take_free_blocks(0, guest.allocator.free_page_count - 40, Owner.BALLOON)
    run(guest, 500)
    assert guest.objects.page_count <= 40
    assert guest.verify().mismatched == 0


@pytest.mark.parametrize("workload", WORKLOADS)
def test_without_any_memory_it_just_goes_on(workload, directory):
    guest = guest_of(workload, 4 * MIB, directory, warm_up=False)
    guest.objects.drop(np.arange(guest.objects.count))
    guest.allocator.allocate_pages(10**6, Owner.BALLOON)
    run(guest, 50)
    assert guest.verify().pages == 0


def test_idle_touches_one_page_in_each_operation():
    memory = memory_of((0, 4096), marks=True)
    guest = guest_of("idle", memory=memory)
    for _ in range(20):
        memory.page_marks.marks[:] = 0
        run(guest, 1)
        data = np.flatnonzero(memory.page_marks.marks)
        reserved = guest._boot.reserved_ranges()
        assert sum(not any(first <= page < end for first, end in reserved) for page in data.tolist()) == 1


def test_operations_are_bounded_in_pages():
    memory = memory_of((0, 16384), marks=True)
    guest = guest_of("churn", memory=memory)
    most = 0
    for _ in range(600):
        memory.page_marks.marks[:] = 0
        run(guest, 1)
        most = max(most, int(memory.page_marks.marks.sum()))
    assert most < 1024 + 200


class TestFiles:
    def test_cached_pages_are_what_the_files_hold(self, directory):
        guest = guest_of("files", 64 * MIB, directory)
        objects, parts = guest.objects, guest.workload.catalogue.parts
        memory = guest.objects.pages.ram.memory
        for row in range(objects.count):
            part = parts[objects.tag_of(row)]
            pages = guest.allocator.database.chain(objects._first[row], objects.size_of(row))
            cached = pages_of(memory)[pages].tobytes()
            with open(part.path, "rb") as file:
                file.seek(part.offset)
                assert cached == file.read(part.size).ljust(len(cached), b"\0")

    def test_a_directory_smaller_than_ram_is_read_again_and_again(self, tmp_path):
        (tmp_path / "only").write_bytes(b"0123456789" * 1000)
        guest = guest_of("files", 8 * MIB, tmp_path)
        assert used_part(guest) > guest.config.low_water
        assert guest.objects.count > 100

    def test_the_walk_is_sorted_and_takes_regular_files_with_content_only(self, directory):
        catalogue = FileCatalogue(directory)
        catalogue.explore()
        names = [os.path.relpath(part.path, directory) for part in catalogue.parts if part.offset == 0]
        assert names == ["02", "04", "06", "sub/01", "sub/03", "sub/05", "sub/07"]
        assert sum(part.size for part in catalogue.parts) == 1 + 4095 + 4096 + 4097 + 70_000 + 300_000 + 5 * MIB + 17

    def test_exploring_in_small_steps_finds_the_same(self, directory):
        whole, stepwise = FileCatalogue(directory), FileCatalogue(directory)
        whole.explore()
        for _ in range(30):
            stepwise.explore(1)
        assert stepwise.parts == whole.parts

    def test_a_directory_that_cannot_be_listed_is_counted(self, directory):
        catalogue = FileCatalogue(directory)
        # Gone between its being found and its being listed: that stops root, too.
        catalogue.explore(1)
        shutil.rmtree(directory / "sub")
        catalogue.explore()
        assert catalogue.skipped_count == 1

    def test_a_file_that_is_gone_is_counted_and_skipped(self, directory):
        guest = guest_of("files", 16 * MIB, directory, warm_up=False)
        for part in guest.workload.catalogue.parts[:3]:
            os.unlink(part.path)
        run(guest, 400)
        assert guest.workload.unreadable_count > 0
        assert guest.verify().mismatched == 0

    def test_a_file_that_shrank_is_filled_up_with_zero_bytes(self, directory):
        guest = guest_of("files", 16 * MIB, directory, warm_up=False)
        for part in guest.workload.catalogue.parts:
            os.truncate(part.path, 5)
        run(guest, 200)
        assert guest.verify().mismatched == 0

    @pytest.mark.parametrize("make", ["nothing", "an empty file", "only a link"])
    def test_a_directory_without_data_is_the_users_to_change(self, make, tmp_path):
        if make == "an empty file":
            (tmp_path / "empty").touch()
        if make == "only a link":
            (tmp_path / "link").symlink_to("/etc/passwd")
        with pytest.raises(UserError, match="holds no readable file with content"):
            guest_of("files", directory=tmp_path)

    def test_no_directory_is_the_users_to_change(self, tmp_path):
        with pytest.raises(UserError, match="needs a directory"):
            guest_of("files")
        with pytest.raises(UserError, match="is not a directory"):
            guest_of("files", directory=tmp_path / "absent")
