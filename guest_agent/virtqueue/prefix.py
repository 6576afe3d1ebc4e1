"""How far the entries of a batch are clean: whatever is behind the first that is not is left."""

import numpy as np
import numpy.typing as npt

__all__ = ["are_first", "true_prefix"]


def true_prefix(clean: npt.NDArray[np.bool_]) -> int:
    """Return how many entries there are before the first False."""
    return len(clean) if clean.all() else int(np.argmin(clean))


def are_first(heads: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.bool_]:
    """Say for each head, all below `size`, whether no earlier one equals it."""
    order = np.arange(len(heads))
    seen_at = np.empty(size, np.int64)
    seen_at[heads[::-1]] = order[::-1]  # the last assignment stays
    return np.equal(seen_at[heads], order)
