"""Mutants for the checks of features, status, reset, registers, configuration space and queue reset.

Each is one of our own devices, or its registers, with one fault.
"""

from check_mutants import Mutant, block, replaced
from check_suspending import SuspendingBalloon

import vdev.device
import vdev.negotiation
from spec.device import DeviceStatus, Feature, feature_mask
from spec.mmio import Interrupt, Register
from vdev.check.verdict import Verdict
from vdev.devices.balloon import BalloonDevice
from vdev.devices.block import BlockDevice
from vdev.devices.entropy import EntropyDevice
from vdev.mmio import MmioRegisters


def put_instead(owner, name, value):
    """A ``patch``: an attribute is another one."""
    return replaced(lambda patch: patch.setattr(owner, name, value))


def reads(register, change):
    """A ``patch``: a register reads as ``change(registers, value)``."""
    read = MmioRegisters.read

    def changed(self, offset, size):
        value = read(self, offset, size)
        return change(self, value) if offset == register else value

    return put_instead(MmioRegisters, "read", changed)


# What is offered and agreed to


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


# Configuration space


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


# Status and reset


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


# Registers


class RepeatsFeatures(EntropyDevice):
    def offered_word(self, index):
        return super().offered_word(index & 3)


class HasAnotherQueue(EntropyDevice):
    def queue_size_max(self, number):
        return 16 if number == 0x7FFF else super().queue_size_max(number)


class KeepsInterrupts(EntropyDevice):
    def reset(self):
        pending = self.interrupt_status
        super().reset()
        self.interrupt_status = pending


class DiesOfQueues(EntropyDevice):
    def enable_queue(self, number):
        self._queues.enable(number, self.queue_size_max(number), self.features)


class AcknowledgesAll(EntropyDevice):
    def acknowledge(self, bits):
        super().acknowledge(3)


class AnnouncesAsUsed(BalloonDevice):
    """Says of a change of configuration space that a buffer was used."""

    def _notify_config_change(self):
        if not self.running:
            super()._notify_config_change()
            return
        self.interrupt_status |= Interrupt.USED_BUFFER
        self.announce_config()


class Hidden(EntropyDevice):
    """Serves queues that are not ready any more, if it is kicked for them."""

    def __init__(self, memory, **options):
        super().__init__(memory, **options)
        self.hidden = {}

    def hide(self, number):
        if number in self.queues:
            self.hidden[number] = self.queues[number], self.queue_setups[number]

    def queue_notify(self, number):
        if number in self.queues or number not in self.hidden:
            return super().queue_notify(number)
        self.queues[number], self.queue_setups[number] = self.hidden[number]
        more = super().queue_notify(number)
        del self.queues[number]
        return more


class ServesStopped(Hidden):
    def stop_queue(self, number):
        if self.running:
            self.hide(number)
        super().stop_queue(number)

    def reset_queue(self, number):
        super().reset_queue(number)
        self.hidden.clear()

    def reset(self):
        super().reset()
        self.hidden.clear()


class ServesReset(Hidden):
    def reset_queue(self, number):
        self.hide(number)
        super().reset_queue(number)


class SwallowsKicks(EntropyDevice):
    """A kick of a queue that there is not takes the next one with it."""

    swallows = False

    def queue_notify(self, number):
        if number not in self.queues:
            self.swallows = True
        elif self.swallows:
            self.swallows = False
            return False
        return super().queue_notify(number)


class KeepsQueuePositions(EntropyDevice):
    """A queue that was reset goes on where it stood."""

    base = None

    def reset_queue(self, number):
        self.base = self.queues[number].ring_base()
        super().reset_queue(number)

    def enable_queue(self, number):
        super().enable_queue(number)
        if self.base is not None and self.base & 0x7FFF < self.queues[number].size:
            self.queues[number].start_from(self.base)


class KeepsQueueSize(EntropyDevice):
    """A queue that was reset keeps its size."""

    size = None

    def reset_queue(self, number):
        self.size = self.queue_setups[number].size
        super().reset_queue(number)

    def enable_queue(self, number):
        self.queue_setups[number].size = self.size or self.queue_setups[number].size
        super().enable_queue(number)


class NeverResetsQueues(EntropyDevice):
    def reset_queue(self, number):
        """Do nothing."""


class ResetsAllQueues(BalloonDevice):
    def reset_queue(self, number):
        for each in range(len(self.queue_sizes)):
            super().reset_queue(each)


# Suspended


class SuspendsEarly(SuspendingBalloon):
    def write_status(self, value):
        if value & DeviceStatus.SUSPEND and not self.is_suspended and not self.status & DeviceStatus.DRIVER_OK:
            self.status |= DeviceStatus.SUSPEND
        else:
            super().write_status(value)


class IgnoresSuspend(SuspendingBalloon):
    def suspend(self):
        """Go on as before."""


class ServesSuspended(SuspendingBalloon):
    @property
    def running(self):
        return super().running or self.is_suspended


class NeverResumes(SuspendingBalloon):
    def resume(self):
        """Stay suspended."""


class TakesConfiguration(SuspendingBalloon):
    def write_config(self, offset, size, value):
        BalloonDevice.write_config(self, offset, size, value)


class AnnouncesAtOnce(SuspendingBalloon):
    def _notify_config_change(self):
        self.interrupt_status |= Interrupt.CONFIGURATION_CHANGE
        self.announce_config()


class ForgetsChanges(SuspendingBalloon):
    def resume(self):
        self.owes_announcement = False
        super().resume()


class KeepsDriverOk(SuspendingBalloon):
    """Shows SUSPEND and DRIVER_OK both."""

    @property
    def running(self):
        return super().running and not self.is_suspended

    def suspend(self):
        self.status |= DeviceStatus.SUSPEND


def _raise(*_):
    raise KeyError("a register")


def _acknowledge_known(self, value):
    self.device.acknowledge({1: 1, 2: 2, 3: 3}[value])


def _write_data_whole(self, value):
    self.device.queue_notify(value)


MUTANTS = [
    Mutant("offers no VERSION_1", "entropy", {"features.version-1-is-offered"}, make=Legacy),
    Mutant(
        "offers RING_PACKED alone",
        "entropy",
        {"features.requirements-are-offered"},
        also={"features.version-1-is-offered", "features.subsets-are-accepted"},
        make=OffersWithoutNeeds,
    ),
    Mutant("offers a reserved bit", "entropy", {"features.only-defined-bits"}, make=OffersReserved),
    Mutant(
        "offers SR_IOV",
        "entropy",
        {"features.sr-iov-is-not-offered"},
        also={"features.only-defined-bits"},
        make=OffersSrIov,
    ),
    Mutant("insists on INDIRECT_DESC", "entropy", {"features.subsets-are-accepted"}, make=InsistsOnIndirect),
    Mutant("drops what was not offered", "entropy", {"features.unoffered-are-refused"}, make=DropsUnoffered),
    Mutant(
        "takes a feature without its needs",
        "entropy",
        {"features.dependent-alone-is-refused"},
        patch=put_instead(vdev.device, "feature_violation", _without_needs),
    ),
    Mutant("agrees once", "entropy", {"features.agreed-again-after-reset"}, make=AgreesOnce),
    Mutant("remembers features", "entropy", {"features.agreed-again-after-reset"}, make=RemembersFeatures),
    Mutant("reads late", "block", {"config.readable-before-features-ok"}, make=block(ReadsLate)),
    Mutant(
        "counts reads",
        "block",
        {"config.reads-the-same-twice"},
        also={"config.read-only-fields-stay"},
        make=block(CountsReads),
    ),
    Mutant("takes any field", "balloon", {"config.read-only-fields-stay"}, make=TakesAnyField),
    Mutant(
        "reads past the end",
        "entropy",
        {"config.odd-accesses-are-survived"},
        make=ReadsPastTheEnd,
        verdict=Verdict.CRASHED,
    ),
    Mutant(
        "keeps its generation",
        "balloon",
        {"config.generation-moves-with-a-change"},
        also={"balloon-config.target-is-told"},
        make=KeepsGeneration,
    ),
    Mutant("moves its generation", "entropy", {"config.generation-stays-without-a-change"}, make=MovesGeneration),
    Mutant("starts early", "entropy", {"status.nothing-before-driver-ok"}, make=StartsEarly),
    Mutant("hides a status bit", "entropy", {"status.reads-back"}, patch=reads(Register.STATUS, lambda _, v: v & ~2)),
    Mutant(
        "forgets to clear its status",
        "entropy",
        {"reset.status-reads-zero"},
        also={"features.unoffered-are-refused", "features.dependent-alone-is-refused", "status.reads-back"},
        make=ForgetsToClear,
    ),
    Mutant(
        "goes on after a reset",
        "entropy",
        {"reset.queues-are-left-alone"},
        also={"mmio.reset-clears-queues-and-interrupts"},
        make=GoesOn,
    ),
    Mutant("keeps its positions", "entropy", {"reset.another-driver-starts-anew"}, make=KeepsPositions),
    Mutant("breaks silently", "entropy", {"status.an-error-asks-for-a-reset"}, make=BreaksSilently),
    Mutant("needs a reset quietly", "entropy", {"status.asking-for-a-reset-is-announced"}, make=NeedsResetQuietly),
    Mutant(
        "another magic", "entropy", {"mmio.magic-and-version"}, patch=reads(Register.MAGIC_VALUE, lambda _, v: v + 1)
    ),
    Mutant("version 1", "entropy", {"mmio.magic-and-version"}, patch=reads(Register.VERSION, lambda *_: 1)),
    Mutant("another type", "entropy", {"mmio.device-id"}, patch=reads(Register.DEVICE_ID, lambda *_: 63)),
    Mutant("repeats its features", "entropy", {"mmio.feature-words"}, make=RepeatsFeatures),
    Mutant("has another queue", "entropy", {"mmio.absent-queue-has-size-0"}, make=HasAnotherQueue),
    Mutant(
        "is never ready", "entropy", {"mmio.queue-ready-reads-back"}, patch=reads(Register.QUEUE_READY, lambda *_: 0)
    ),
    Mutant("keeps interrupts", "entropy", {"mmio.reset-clears-queues-and-interrupts"}, make=KeepsInterrupts),
    Mutant("keeps queues ready", "entropy", {"mmio.reset-clears-queues-and-interrupts"}, make=KeepsReady),
    Mutant(
        "has shared memory", "entropy", {"mmio.absent-shared-memory"}, patch=reads(Register.SHM_LEN_LOW, lambda *_: 0)
    ),
    Mutant(
        "dies of odd accesses",
        "entropy",
        {"mmio.odd-accesses-are-survived"},
        patch=put_instead(MmioRegisters, "_report_access", _raise),
        verdict=Verdict.CRASHED,
    ),
    Mutant(
        "dies of odd values",
        "entropy",
        {"mmio.odd-values-are-survived"},
        patch=put_instead(MmioRegisters, "_write_interrupt_ack", _acknowledge_known),
        verdict=Verdict.CRASHED,
    ),
    Mutant(
        "dies of odd queues",
        "entropy",
        {"mmio.queue-of-no-size-is-survived"},
        make=DiesOfQueues,
        verdict=Verdict.CRASHED,
    ),
    Mutant(
        "forgets causes that were read",
        "entropy",
        {"mmio.interrupt-status-until-acknowledged"},
        patch=reads(Register.INTERRUPT_STATUS, lambda registers, v: registers.device.acknowledge(v & 1) or v),
    ),
    Mutant(
        "shows causes that there are not",
        "entropy",
        {"mmio.interrupt-status-has-no-other-bits"},
        patch=reads(Register.INTERRUPT_STATUS, lambda _, v: v and v | 4),
    ),
    Mutant(
        "takes all for acknowledged", "entropy", {"mmio.acknowledging-takes-back-what-it-names"}, make=AcknowledgesAll
    ),
    Mutant("announces changes as used buffers", "balloon", {"mmio.change-sets-bit-1"}, make=AnnouncesAsUsed),
    Mutant("serves a stopped queue", "entropy", {"mmio.queue-that-is-not-ready-is-left-alone"}, make=ServesStopped),
    Mutant("swallows a kick", "entropy", {"mmio.notification-names-the-queue"}, make=SwallowsKicks),
    Mutant(
        "takes data for a queue",
        "entropy",
        {"mmio.notification-carries-data"},
        patch=put_instead(MmioRegisters, "_write_queue_notify", _write_data_whole),
    ),
    Mutant("serves a queue that was reset", "entropy", {"queue-reset.requests-are-dropped"}, make=ServesReset),
    Mutant("keeps a queue's positions", "entropy", {"queue-reset.begins-anew"}, make=KeepsQueuePositions),
    Mutant("keeps a queue's size", "entropy", {"queue-reset.another-size-and-place"}, make=KeepsQueueSize),
    Mutant(
        "never resets a queue",
        "entropy",
        {"queue-reset.register-resets", "queue-reset.registers-read-zero"},
        also={
            "queue-reset.requests-are-dropped",
            "queue-reset.begins-anew",
            "queue-reset.another-size-and-place",
        },
        only=("queue-reset.regist*",),
        make=NeverResetsQueues,
    ),
    Mutant("resets all queues", "balloon", {"queue-reset.register-resets"}, make=ResetsAllQueues),
    Mutant(
        "is always resetting what is ready",
        "entropy",
        {"queue-reset.registers-read-zero"},
        patch=reads(Register.QUEUE_RESET, lambda registers, v: int(bool(registers.device.queues))),
    ),
    Mutant(
        "is always resetting after a reset",
        "entropy",
        {"queue-reset.registers-read-zero"},
        patch=reads(Register.QUEUE_RESET, lambda registers, v: int(registers.device.status == 0)),
    ),
    Mutant("suspends early", "balloon", {"suspend.ignored-before-driver-ok"}, make=SuspendsEarly),
    Mutant("ignores SUSPEND", "balloon", {"suspend.suspends"}, also={"suspend.*"}, make=IgnoresSuspend),
    Mutant("serves while it is suspended", "balloon", {"suspend.queues-are-left-alone"}, make=ServesSuspended),
    Mutant("never resumes", "balloon", {"suspend.resumes"}, also={"suspend.announces-changes-late"}, make=NeverResumes),
    Mutant(
        "takes configuration while it is suspended",
        "balloon",
        {"suspend.takes-no-configuration"},
        make=TakesConfiguration,
    ),
    Mutant("announces while it is suspended", "balloon", {"suspend.announces-changes-late"}, make=AnnouncesAtOnce),
    Mutant("forgets changes", "balloon", {"suspend.announces-changes-late"}, make=ForgetsChanges),
    Mutant("keeps DRIVER_OK", "balloon", {"suspend.everything-taken-is-used"}, also={"suspend.*"}, make=KeepsDriverOk),
]
