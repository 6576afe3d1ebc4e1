"""What a person types after --only and --skip: names of checks, cases and statements, with * and ? in them."""

import difflib
import re
from collections.abc import Iterable, Sequence
from functools import cache

from spec.statements import catalogue
from vdev.errors import UserError

__all__ = ["is_named", "refuse_unknown"]


def is_named(patterns: Iterable[str], *, check: str, case: str, covers: Sequence[str]) -> bool:
    """Say whether one of the patterns names the check, the case, or a statement that it covers.

    >>> is_named(["used-ring.*"], check="used-ring.id", case="used-ring.id[split]", covers=[])
    True
    >>> is_named(["*[packed]"], check="used-ring.id", case="used-ring.id[split]", covers=[])
    False
    """
    return any(
        _compiled(pattern).fullmatch(name) is not None for pattern in patterns for name in (check, case, *covers)
    )


def refuse_unknown(option: str, patterns: Iterable[str], names: Sequence[str]) -> None:
    """Raise UserError, one line, for a pattern that none of `names` fits.

    It says why, for a statement that has no check, and what may have been meant.
    """
    for pattern in patterns:
        compiled = _compiled(pattern)
        if any(compiled.fullmatch(name) for name in names):
            continue
        statement = catalogue().get(pattern)
        if statement is not None:
            reason = statement.unchecked or statement.missing or "it binds the other side"
            raise UserError(f"{option}: no check covers {pattern}: {reason}")
        near = difflib.get_close_matches(pattern, names, 1)
        hint = f"; did you mean {near[0]}?" if near else "; --list names them all"
        raise UserError(f"{option}: no check, case or statement is called {pattern}{hint}")


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    # Not fnmatch: the brackets of a case's name are no set of characters.
    parts = re.split(r"([*?])", pattern)
    return re.compile("".join({"*": ".*", "?": "."}.get(part, re.escape(part)) for part in parts))
