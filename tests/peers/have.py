"""Skip a test with the reason when a part of a peer is not on this machine."""

import pytest

from peers.parts import Missing


def have(find):
    """What ``find()`` returns; the test is skipped where it says that something is missing."""
    try:
        return find()
    except Missing as missing:
        pytest.skip(str(missing))
