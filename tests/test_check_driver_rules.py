"""Rules say nothing against a driver that does what the text allows in a way that ours does not."""

import pytest

from vdev.check.driver.observation import InterruptAcknowledged, InterruptStatusRead, QueueAreas, QueueMadeReady
from vdev.check.driver.rules.queues import QueueSizeFits
from vdev.check.driver.rules.registers import InterruptIsLookedUp
from vdev.check.registry import RingFormat
from vdev.check.verdict import Failed


def test_causes_that_were_read_together_may_be_acknowledged_one_by_one():
    rule = InterruptIsLookedUp(None)
    rule.read(InterruptStatusRead(3))
    rule.acknowledged(InterruptAcknowledged(1))
    rule.acknowledged(InterruptAcknowledged(2))
    with pytest.raises(Failed):
        rule.acknowledged(InterruptAcknowledged(1))


@pytest.mark.parametrize(("size", "fits"), [(64, True), (128, False)])
def test_a_size_that_was_chosen_blindly_is_held_against_what_the_device_takes(size, fits):
    rule = QueueSizeFits(None)
    ready = QueueMadeReady(0, RingFormat.SPLIT, QueueAreas(size, 0x1000, 0x2000, 0x3000), 64, b"")
    if fits:
        rule.ready(ready)
        assert rule.is_exercised
        return
    with pytest.raises(Failed):
        rule.ready(ready)
