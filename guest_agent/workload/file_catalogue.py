"""The files that a workload may read: a bounded, sorted walk of one directory."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from vdev.errors import UserError
from vdev.memory import PAGE_SIZE

__all__ = ["FileCatalogue", "FilePart"]

_PART_PAGES = 1024
_MOST_PARTS = 1 << 16
_MOST_ENTRIES = 1 << 17


@dataclass(frozen=True)
class FilePart:
    """Up to 4 MiB of a regular file: large ones are cached in parts."""

    path: str
    offset: int
    size: int

    @property
    def page_count(self) -> int:
        """Pages that hold it, the last one filled up with zero bytes."""
        return -(-self.size // PAGE_SIZE)


class FileCatalogue:
    """The parts of the regular files below a directory, sorted by path, and how many files could not be looked at.

    Nothing is known before `explore`. Symbolic links are not followed. The walk ends after 65536 parts or 131072
    directory entries.
    """

    def __init__(self, directory: Path | None) -> None:
        self.skipped_count = 0
        self.parts: list[FilePart] = []
        self._walking = self._walk(str(directory)) if directory is not None else iter(())

    def explore(self, entry_count: int = _MOST_ENTRIES) -> None:
        """Look at the next `entry_count` directory entries."""
        for path, size in islice(self._walking, entry_count):
            for offset in range(0, size, _PART_PAGES * PAGE_SIZE):
                self.parts.append(FilePart(path, offset, min(_PART_PAGES * PAGE_SIZE, size - offset)))
            if len(self.parts) >= _MOST_PARTS:
                self._walking = iter(())

    def require_readable(self, directory: Path | None) -> None:
        """Explore all.

        Raises UserError, in words for the person who named `directory`, if there is nothing to read.
        """
        if directory is None:
            raise UserError("the workload 'files' needs a directory to read from; name one")
        if not directory.is_dir():
            raise UserError(f"{directory} is not a directory; name one with files to read")
        self.explore()
        if not any(os.access(part.path, os.R_OK) for part in self.parts):
            raise UserError(f"{directory} holds no readable file with content; name another directory")

    def _walk(self, directory: str) -> Iterator[tuple[str, int]]:
        """Yield path and size of each entry; size 0 for one that has nothing to read."""
        try:
            with os.scandir(directory) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError:
            self.skipped_count += 1
            return
        for entry in entries:
            try:
                is_directory = entry.is_dir(follow_symlinks=False)
                size = entry.stat(follow_symlinks=False).st_size if entry.is_file(follow_symlinks=False) else 0
            except OSError:
                self.skipped_count += 1
                continue
            if is_directory:
                yield from self._walk(entry.path)
            else:
                yield entry.path, size
