"""Mutants for the checks of features, status, reset and configuration space: our own devices with one fault."""

from check_mutants import block
from check_session_faults import mutant, put_instead, reads

import vdev.device
import vdev.negotiation
from spec.device import DeviceStatus, Feature, feature_mask
from spec.mmio import Register
from vdev.check.verdict import Verdict
from vdev.devices.balloon import BalloonDevice
from vdev.devices.block import BlockDevice
from vdev.devices.entropy import EntropyDevice


class Legacy(EntropyDevice):
    offered_features = feature_mask(Feature.EVENT_IDX, Feature.INDIRECT_DESC)


class OffersWithoutNeeds(EntropyDevice):
    offered_features = feature_mask(Feature.RING_PACKED)


class OffersReserved(EntropyDevice):
    offered_features = EntropyDevice.offered_features | 1 << 45


class OffersSrIov(EntropyDevice):
    offered_features = EntropyDevice.offered_features | feature_mask(Feature.SR_IOV)


class InsistsOnIndirect(EntropyDevice):
    """Refuses EVENT_IDX without INDIRECT_DESC."""

    def write_status(self, value):
        mask = self.driver_features
        if mask >> Feature.EVENT_IDX & 1 and not mask >> Feature.INDIRECT_DESC & 1:
            value &= ~DeviceStatus.FEATURES_OK
        super().write_status(value)


class DropsUnoffered(EntropyDevice):
    """Takes what was not offered for not written."""

    def accept_word(self, index, value):
        super().accept_word(index, value & self.offered_word(index))


def _without_needs(offered, accepted):
    """Refuse what was not offered, and nothing else."""
    return vdev.negotiation.feature_violation(offered, accepted) if accepted & ~offered else None


class AgreesOnce(EntropyDevice):
    """Refuses all that it offers when it is accepted once more."""

    agreed = False

    def write_status(self, value):
        if value & DeviceStatus.FEATURES_OK and self.driver_features == self.offered_features:
            value &= ~DeviceStatus.FEATURES_OK if self.agreed else ~0
            self.agreed = True
        super().write_status(value)


class RemembersFeatures(EntropyDevice):
    """Has the next driver accept at least what the one before did."""

    before = 0

    def reset(self):
        self.before |= self.features if self.features == self.offered_features else 0
        super().reset()

    def write_status(self, value):
        super().write_status(value & ~DeviceStatus.FEATURES_OK if self.before & ~self.driver_features else value)


class ReadsLate(BlockDevice):
    """Its configuration space reads 0 before FEATURES_OK."""

    def read_config(self, offset, size):
        return super().read_config(offset, size) if self.status & DeviceStatus.FEATURES_OK else 0


class CountsReads(BlockDevice):
    """A running device's last field that nobody negotiated counts how often it was read."""

    count = 0

    def read_config(self, offset, size):
        self.count += self.running
        is_last = offset == self.config.dtype.fields["write_granularity"][1]
        return super().read_config(offset, size) + (self.count & 0x7F if is_last else 0)


class TakesAnyField(BalloonDevice):
    def writable_fields(self):
        return frozenset(self.config.dtype.names)


class ReadsPastTheEnd(EntropyDevice):
    def read_config(self, offset, size):
        return (self.config.tobytes() + bytes(256))[offset]


class KeepsGeneration(BalloonDevice):
    config_generation = 0


class MovesGeneration(EntropyDevice):
    count = 0

    @property
    def config_generation(self):
        self.count += 1
        return self.count


class StartsEarly(EntropyDevice):
    """Serves queues from FEATURES_OK on."""

    @property
    def running(self):
        return bool(self.status & DeviceStatus.FEATURES_OK)


class ForgetsToClear(EntropyDevice):
    """Keeps its status when it is reset before features were written."""

    def reset(self):
        before = self.status
        super().reset()
        if before == DeviceStatus.ACKNOWLEDGE | DeviceStatus.DRIVER and not self.driver_features:
            self.status = before


class KeepsReady(EntropyDevice):
    """Its queues are still there after a reset, until features are agreed again."""

    def reset(self):
        kept = dict(self.queues)
        super().reset()
        self.queues.update(kept)

    def negotiated(self):
        self.queues.clear()


class GoesOn(KeepsReady):
    """A reset clears the status, and leaves the queues to be served."""

    is_undead = False

    @property
    def running(self):
        return super().running or self.is_undead

    def reset(self):
        setups, features = list(self.queue_setups), self.features
        super().reset()
        if self.queues:
            self.queue_setups[:], self.features, self.is_undead = setups, features, True

    def negotiated(self):
        super().negotiated()
        self.is_undead = False


class KeepsPositions(EntropyDevice):
    """A queue that stood at position 13 when the device was reset does so again for the next driver."""

    bases = None

    def reset(self):
        stood = {number: queue.ring_base() for number, queue in self.queues.items()}
        self.bases = stood or self.bases
        super().reset()

    def enable_queue(self, number):
        super().enable_queue(number)
        base = (self.bases or {}).pop(number, 0)
        if base & 0x7FFF == 13:
            self.queues[number].start_from(base)


class BreaksSilently(EntropyDevice):
    """Stops for good at a violation, and does not say so."""

    is_broken = False

    @property
    def running(self):
        return super().running and not self.is_broken

    def needs_reset(self, violation):
        self.is_broken = True

    def reset(self):
        super().reset()
        self.is_broken = False


class NeedsResetQuietly(EntropyDevice):
    def _notify_config_change(self):
        if not self.status & DeviceStatus.DEVICE_NEEDS_RESET:
            super()._notify_config_change()


MUTANTS = [
    mutant("offers no VERSION_1", "entropy", {"features.version-1-is-offered"}, make=Legacy),
    mutant(
        "offers RING_PACKED alone",
        "entropy",
        {"features.requirements-are-offered"},
        also={"features.version-1-is-offered", "features.subsets-are-accepted"},
        make=OffersWithoutNeeds,
    ),
    mutant("offers a reserved bit", "entropy", {"features.only-defined-bits"}, make=OffersReserved),
    mutant(
        "offers SR_IOV",
        "entropy",
        {"features.sr-iov-is-not-offered"},
        also={"features.only-defined-bits"},
        make=OffersSrIov,
    ),
    mutant("insists on INDIRECT_DESC", "entropy", {"features.subsets-are-accepted"}, make=InsistsOnIndirect),
    mutant("drops what was not offered", "entropy", {"features.unoffered-are-refused"}, make=DropsUnoffered),
    mutant(
        "takes a feature without its needs",
        "entropy",
        {"features.dependent-alone-is-refused"},
        patch=put_instead(vdev.device, "feature_violation", _without_needs),
    ),
    mutant("agrees once", "entropy", {"features.agreed-again-after-reset"}, make=AgreesOnce),
    mutant("remembers features", "entropy", {"features.agreed-again-after-reset"}, make=RemembersFeatures),
    mutant("reads late", "block", {"config.readable-before-features-ok"}, make=block(ReadsLate)),
    mutant(
        "counts reads",
        "block",
        {"config.reads-the-same-twice"},
        also={"config.read-only-fields-stay"},
        make=block(CountsReads),
    ),
    mutant("takes any field", "balloon", {"config.read-only-fields-stay"}, make=TakesAnyField),
    mutant(
        "reads past the end",
        "entropy",
        {"config.odd-accesses-are-survived"},
        make=ReadsPastTheEnd,
        verdict=Verdict.CRASHED,
    ),
    mutant(
        "keeps its generation",
        "balloon",
        {"config.generation-moves-with-a-change"},
        also={"balloon-config.target-is-told"},
        make=KeepsGeneration,
    ),
    mutant("moves its generation", "entropy", {"config.generation-stays-without-a-change"}, make=MovesGeneration),
    mutant("starts early", "entropy", {"status.nothing-before-driver-ok"}, make=StartsEarly),
    mutant("hides a status bit", "entropy", {"status.reads-back"}, patch=reads(Register.STATUS, lambda _, v: v & ~2)),
    mutant(
        "forgets to clear its status",
        "entropy",
        {"reset.status-reads-zero"},
        also={"features.unoffered-are-refused", "features.dependent-alone-is-refused", "status.reads-back"},
        make=ForgetsToClear,
    ),
    mutant(
        "goes on after a reset",
        "entropy",
        {"reset.queues-are-left-alone"},
        also={"mmio.reset-clears-queues-and-interrupts"},
        make=GoesOn,
    ),
    mutant("keeps its positions", "entropy", {"reset.another-driver-starts-anew"}, make=KeepsPositions),
    mutant("breaks silently", "entropy", {"status.an-error-asks-for-a-reset"}, make=BreaksSilently),
    mutant("needs a reset quietly", "entropy", {"status.asking-for-a-reset-is-announced"}, make=NeedsResetQuietly),
]
