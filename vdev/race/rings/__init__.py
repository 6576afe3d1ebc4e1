"""Driver against device on one ring: every interleaving of their accesses, store buffers included."""

from vdev.race.rings.replay import replay
from vdev.race.rings.sample import sample
from vdev.race.rings.scenario import RingScenario
from vdev.race.rings.schedule_file import RingSchedule, format_ring_schedule, parse_ring_schedule, ring_schedule_of
from vdev.race.rings.search import search
from vdev.race.rings.verdict import RingFinding, RingStep, RingVerdict
from vdev.race.rings.ways import default_scenarios

__all__ = [
    "RingFinding",
    "RingScenario",
    "RingSchedule",
    "RingStep",
    "RingVerdict",
    "default_scenarios",
    "format_ring_schedule",
    "parse_ring_schedule",
    "replay",
    "ring_schedule_of",
    "sample",
    "search",
]
