"""Our own drivers before the judge, in one process."""

from guest_agent.drivers.entropy import ENTROPY_DRIVER_FEATURES, EntropyDriver
from guest_agent.mmio import MmioDriver
from spec.device import Feature, feature_mask
from vdev.bus import MMIO_BASE
from vdev.check.driver.in_process import judge_in_process
from vdev.check.driver.judge import Judge
from vdev.check.verdict import Verdict
from vdev.devices.kind import Carrier

AREA = 0x1_0000
RAM_SIZE = 4 << 20
PACKED = feature_mask(Feature.RING_PACKED)


class Entropy:
    """The entropy driver, asking for more whenever it has what it asked for."""

    def __init__(self, window, memory, transport=MmioDriver, wanted=ENTROPY_DRIVER_FEATURES):
        probed = transport.probe(window, MMIO_BASE)
        self.driver = EntropyDriver.start(probed, memory, AREA, wanted_features=wanted)

    @property
    def gave_up(self):
        return self.driver.gave_up

    def handle_interrupt(self):
        self.driver.handle_interrupt()

    def step(self):
        before = self.driver.received_size
        self.driver.work()
        self.driver.take()
        return self.driver.ask(64) or self.driver.received_size != before


def judge_own(start=Entropy, device_type="entropy", **options):
    """Return the results by name of a driver of ours."""
    judge = Judge(device_type, Carrier.MMIO, **options)
    judge_in_process(judge, start, memory_size=RAM_SIZE)
    return {case.name: case for case in judge.cases()}


def failed(cases):
    return {
        name: f"{case.verdict.value}: {case.why}"
        for name, case in cases.items()
        if case.verdict not in (Verdict.PASS, Verdict.NOT_APPLICABLE)
    }
