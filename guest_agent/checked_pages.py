"""Data pages that can be checked: each write bumps the page's version and stores its check in the page database."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from guest_agent.checksum import WORDS_PER_PAGE, mix, page_checks, page_checksums
from guest_agent.marked_ram import MarkedRam
from guest_agent.page_database import MAX_ORDER, Blocks, Owner, PageDatabase

__all__ = ["CheckedPages", "WrongPage", "pages_in"]

_CHUNK = 256
"""Pages handled at once: 1 MiB, which stays in the processor's cache between storing and summing."""

_Pages = npt.NDArray[np.int64]


@dataclass(frozen=True)
class WrongPage:
    """A data page that is not what its owner last wrote."""

    page: int
    what: str


class CheckedPages:
    """Writes data pages and finds those that are not as they were written.

    Generated content hangs on the seed, the page and its version, and is never all zero words.
    """

    def __init__(self, database: PageDatabase, seed: int) -> None:
        self.ram: MarkedRam = database.ram
        self._database = database
        random = np.random.Generator(np.random.PCG64(seed))
        self._pattern = random.integers(0, 1 << 64, WORDS_PER_PAGE, np.uint64)
        self._seed = np.uint64(random.integers(0, 1 << 64, dtype=np.uint64))

    def generate(self, pages: _Pages, owner: Owner) -> None:
        """Write generated content to single pages, wherever they lie, and seal them."""
        for chunk in _chunks(pages):
            versions = self._next_versions(chunk)
            words = self._pattern ^ self._stamps(chunk, versions)[:, None]
            self.ram.store_pages(chunk, words.view(np.uint8))
            self._store_checks(chunk, owner, versions, page_checksums(words))

    def generate_run(self, first: int, page_count: int, owner: Owner) -> None:
        """Write generated content to a run of pages in one region, and seal them."""
        for chunk in _chunks(np.arange(first, first + page_count)):
            versions = self._next_versions(chunk)
            with self.ram.storing(int(chunk[0]), len(chunk)) as live:
                words = live.view(np.uint64)
                np.bitwise_xor(self._pattern, self._stamps(chunk, versions)[:, None], out=words)
            self._store_checks(chunk, owner, versions, page_checksums(words))

    def scribble(self, first: int, page_count: int) -> None:
        """Write content that nobody will rely on to a run of pages in one region."""
        for chunk in _chunks(np.arange(first, first + page_count)):
            with self.ram.storing(int(chunk[0]), len(chunk)) as live:
                np.bitwise_xor(self._pattern, mix(chunk.astype(np.uint64))[:, None], out=live.view(np.uint64))

    def seal(self, pages: _Pages, owner: Owner) -> None:
        """Take what `pages` hold now as written by their owner."""
        for chunk in _chunks(pages):
            versions = self._next_versions(chunk)
            self._store_checks(chunk, owner, versions, page_checksums(self.ram.load_pages(chunk)))

    def _next_versions(self, pages: _Pages) -> npt.NDArray[np.uint32]:
        return self._database.version.take(pages) + np.uint32(1)

    def _stamps(self, pages: _Pages, versions: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint64]:
        return mix(self._seed ^ (pages.astype(np.uint64) << np.uint64(32)) ^ versions.astype(np.uint64))

    def _store_checks(
        self, pages: _Pages, owner: Owner, versions: npt.NDArray[np.uint32], checksums: npt.NDArray[np.uint64]
    ) -> None:
        self._database.version.put(pages, versions)
        self._database.check.put(pages, page_checks(checksums, pages, owner, versions))

    def wrong_pages(self, pages: _Pages, owner: Owner) -> Iterator[WrongPage]:
        """Yield those of `pages`, all sealed for `owner`, whose content is not what was sealed."""
        for chunk in _chunks(pages):
            versions = self._database.version.take(chunk)
            checksums = page_checksums(self.ram.load_pages(chunk))
            wrong = page_checks(checksums, chunk, owner, versions) != self._database.check.take(chunk)
            for index in np.flatnonzero(wrong).tolist():
                page, version = int(chunk[index]), int(versions[index])
                zero = not self.ram.run(page, 1).any()
                found = "all zero" if zero else "other content"
                yield WrongPage(page, f"{found} where {owner.name} wrote version {version}")


def pages_in(blocks: Blocks) -> _Pages:
    """Return every page of `blocks`; a block of impossible order counts as one page."""
    orders = np.where(blocks.orders <= MAX_ORDER, blocks.orders, 0)
    sizes = 1 << orders
    starts = np.repeat(blocks.pages - np.concatenate(([0], np.cumsum(sizes)[:-1])), sizes)
    return starts + np.arange(len(starts))


def _chunks(pages: _Pages) -> Iterator[_Pages]:
    for start in range(0, len(pages), _CHUNK):
        yield pages[start : start + _CHUNK]
