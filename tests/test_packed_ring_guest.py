"""A guest's balloon on packed rings of sizes that no split one can have."""

import pytest
from device_setup import RINGS, BalloonPair, Ring

from guest_agent.drivers.balloon import BALLOON_DRIVER_FEATURES
from guest_agent.page_database import Owner
from spec.balloon import BalloonFeature
from spec.device import feature_mask

# A report is a chain of 32 segments, for which the smallest of the queues has no room.
FEATURES = BALLOON_DRIVER_FEATURES & ~feature_mask(BalloonFeature.PAGE_REPORTING)


@pytest.mark.parametrize("queue_size", [7, 33, 100])
def test_a_packed_queue_can_have_any_size(queue_size, monkeypatch):
    monkeypatch.setattr(Ring, "allowed", RINGS["packed"])
    pair = BalloonPair(queue_size=queue_size, features=FEATURES)
    assert {queue.size for queue in pair.driver.queues.values()} == {queue_size}
    pair.device.set_target(1000)
    pair.settle()
    assert pair.device.actual == 1000
    pages = pair.hints()
    pair.device.hinting.request()
    pair.settle()
    assert len(pages) > queue_size
    assert len(pages) == pair.guest.held(Owner.HINTED)
