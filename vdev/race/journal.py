"""What a sweep has judged so far: JSON lines in a file, so that an interrupted sweep can go on.

The first line says whose results these are; every other one is a verdict.
"""

import fcntl
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from vdev.errors import UserError
from vdev.race.finding_json import verdict_from_json, verdict_to_json
from vdev.race.verdict import Verdict

__all__ = ["Journal"]

VERSION = 1


class Journal:
    """A file of verdicts that belong to one `heading`: version of vdev, bound and what else decides them.

    `path` is the file, opened anew or to go on; `verdicts` are those that it had; `was_cut` says that its last
    line had no end and was taken off. Raises UserError for a file that cannot be used, that is another sweep's,
    or that another sweep has open.
    """

    def __init__(self, path: Path, heading: Mapping[str, Any], *, resume: bool) -> None:
        self.path = path
        self._heading = {"journal": VERSION, **heading}
        self.verdicts: list[Verdict] = []
        self.was_cut = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = path.open("a+b", buffering=0)
        except OSError as error:
            raise UserError(f"cannot keep a journal in {path}: {error.strerror}") from error
        try:
            self._begin(resume)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _begin(self, resume: bool) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"another sweep is writing {self.path}; give another directory with --out") from error
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            raise UserError(f"cannot keep a journal in {self.path}: it is no regular file")
        self._file.seek(0)
        lines = self._file.read().splitlines(keepends=True) if resume else []
        whole = [line for line in lines if line.endswith(b"\n")]
        self.was_cut = len(whole) < len(lines)
        if whole:
            self._read(whole)
        self._file.truncate(sum(map(len, whole)))
        if not whole:
            self._write(self._heading)

    def _read(self, lines: list[bytes]) -> None:
        heading = self._parse(lines[0], 1)
        if not isinstance(heading, dict) or "journal" not in heading:
            raise UserError(f"{self.path} is no journal of a sweep; give another directory with --out")
        for name, value in self._heading.items():
            if heading.get(name) != value:
                there = json.dumps(heading.get(name))
                raise UserError(
                    f"{self.path} is of a sweep with {name} {there}, not {json.dumps(value)};"
                    " leave out --resume, or give another directory with --out"
                )
        for number, line in enumerate(lines[1:], 2):
            mapping = self._parse(line, number)
            try:
                self.verdicts.append(verdict_from_json(mapping))
            except ValueError as error:
                raise UserError(f"{self.path}:{number}: {error}; leave out --resume") from error

    def _parse(self, line: bytes, number: int) -> Any:
        try:
            return json.loads(line)
        except ValueError as error:
            raise UserError(f"{self.path}:{number}: this line is damaged; leave out --resume") from error

    def add(self, verdict: Verdict) -> None:
        """Write a verdict down, for a later sweep to go on from. Raises UserError for a full disk."""
        self._write(verdict_to_json(verdict))

    def _write(self, mapping: Mapping[str, Any]) -> None:
        line = json.dumps(mapping, separators=(",", ":")).encode() + b"\n"
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error
