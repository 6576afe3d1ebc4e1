"""`vdev check --list`: how many statements there are, and how much of them is checked, by checks that can fail."""

from collections.abc import Iterable

from spec.statements import Statement, catalogue
from vdev.check.checks import load_device_checks
from vdev.check.coverage import Coverage, chapter_of, coverage, covered_statements, is_of_the_text, read_mutants
from vdev.check.report.text import Line
from vdev.cli.check_driver import driver_covers
from vdev.cli.check_show import print_lines

__all__ = ["show_numbers"]

_HEADS = ("sentences", "testable", "checked", "MUST:", "testable", "checked", "proven", "")
_WIDTH = 10
_MEANING = """described: what the text says without a keyword. testable: a check is possible from outside.
checked: a check covers it. MUST: of these, MUST and MUST NOT.
proven: a check covers it that is failed by a mutant, which is a side with a small fault: so it can fail at all."""


def show_numbers() -> int:
    """Print the table, and return the exit status."""
    checks = load_device_checks()
    of_drivers = driver_covers()
    covered_by = covered_statements({**{name: check.covers for name, check in checks.items()}, **of_drivers})
    mutants = read_mutants()
    own = [statement for statement in catalogue().values() if not is_of_the_text(statement)]
    text = [statement for statement in catalogue().values() if is_of_the_text(statement)]
    rows: list[tuple[str, Coverage]] = []

    def count(name: str, statements: Iterable[Statement]) -> None:
        rows.append((name, coverage(statements, covered_by, mutants)))

    for chapter, statements in _by_chapter(text).items():
        count(chapter, statements)
    count("virtio 1.4, in all", text)
    in_all = len(rows) - 1
    for chapter, statements in _by_chapter(own).items():
        count(f"{chapter}, described" if chapter in dict(rows) else chapter, statements)
    left = max(len(name) for name, _ in rows) + 2
    lines = [Line(" " * left + "".join(f"{head:>{_WIDTH}}" for head in _HEADS).rstrip(), "header")]
    lines += [_row(name, numbers, left, "end" if at == in_all else "plain") for at, (name, numbers) in enumerate(rows)]
    lines += [Line(""), *(Line(line, "header") for line in _MEANING.splitlines()), Line("")]
    mutant_count = len({mutant for names in mutants.values() for mutant in names})
    kinds = f"{len(checks)} checks of devices, {len(of_drivers)} rules and games for drivers"
    summary = f"{len(catalogue())} statements, {kinds}, {mutant_count} mutants"
    lines.append(Line(f"{summary}; {rows[in_all][1].share:.1%} of the testable MUST and MUST NOT are proven", "end"))
    print_lines(lines)
    return 0


def _by_chapter(statements: Iterable[Statement]) -> dict[str, list[Statement]]:
    chapters: dict[str, list[Statement]] = {}
    for statement in statements:
        chapters.setdefault(chapter_of(statement), []).append(statement)
    return chapters


def _row(name: str, numbers: Coverage, left: int, kind: str) -> Line:
    cells = (
        numbers.statements,
        numbers.testable,
        numbers.checked,
        numbers.absolute,
        numbers.absolute_testable,
        numbers.absolute_checked,
        numbers.absolute_proven,
    )
    share = f"{numbers.share:.0%}" if numbers.absolute_testable else ""
    return Line(
        (name.ljust(left) + "".join(f"{cell:>{_WIDTH}}" for cell in cells) + f"{share:>{_WIDTH}}").rstrip(), kind
    )
