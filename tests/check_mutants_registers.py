"""Mutants for the checks of registers, interrupts and queue reset: our own devices with one fault."""

from check_session_faults import mutant, put_instead, raise_error, reads

from spec.mmio import Interrupt, Register
from vdev.check.registry import RingFormat
from vdev.check.verdict import Verdict
from vdev.devices.balloon import BalloonDevice
from vdev.devices.entropy import EntropyDevice
from vdev.mmio import MmioRegisters


class KeepsReady(EntropyDevice):
    """Its queues are still there after a reset, until features are agreed again."""

    def reset(self):
        kept = dict(self.queues)
        super().reset()
        self.queues.update(kept)

    def negotiated(self):
        self.queues.clear()


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


def _acknowledge_known(self, value):
    self.device.acknowledge({1: 1, 2: 2, 3: 3}[value])


def _write_data_whole(self, value):
    self.device.queue_notify(value)


MUTANTS = [
    mutant(
        "another magic", "entropy", {"mmio.magic-and-version"}, patch=reads(Register.MAGIC_VALUE, lambda _, v: v + 1)
    ),
    mutant("version 1", "entropy", {"mmio.magic-and-version"}, patch=reads(Register.VERSION, lambda *_: 1)),
    mutant("another type", "entropy", {"mmio.device-id"}, patch=reads(Register.DEVICE_ID, lambda *_: 63)),
    mutant("repeats its features", "entropy", {"mmio.feature-words"}, make=RepeatsFeatures),
    mutant("has another queue", "entropy", {"mmio.absent-queue-has-size-0"}, make=HasAnotherQueue),
    mutant(
        "is never ready", "entropy", {"mmio.queue-ready-reads-back"}, patch=reads(Register.QUEUE_READY, lambda *_: 0)
    ),
    mutant("keeps interrupts", "entropy", {"mmio.reset-clears-queues-and-interrupts"}, make=KeepsInterrupts),
    mutant("keeps queues ready", "entropy", {"mmio.reset-clears-queues-and-interrupts"}, make=KeepsReady),
    mutant(
        "has shared memory", "entropy", {"mmio.absent-shared-memory"}, patch=reads(Register.SHM_LEN_LOW, lambda *_: 0)
    ),
    mutant(
        "dies of odd accesses",
        "entropy",
        {"mmio.odd-accesses-are-survived"},
        patch=put_instead(MmioRegisters, "_report_access", raise_error),
        verdict=Verdict.CRASHED,
    ),
    mutant(
        "dies of odd values",
        "entropy",
        {"mmio.odd-values-are-survived"},
        patch=put_instead(MmioRegisters, "_write_interrupt_ack", _acknowledge_known),
        verdict=Verdict.CRASHED,
    ),
    mutant(
        "dies of odd queues",
        "entropy",
        {"mmio.queue-of-no-size-is-survived"},
        make=DiesOfQueues,
        verdict=Verdict.CRASHED,
    ),
    mutant(
        "forgets causes that were read",
        "entropy",
        {"mmio.interrupt-status-until-acknowledged"},
        patch=reads(Register.INTERRUPT_STATUS, lambda registers, v: registers.device.acknowledge(v & 1) or v),
    ),
    mutant(
        "shows causes that there are not",
        "entropy",
        {"mmio.interrupt-status-has-no-other-bits"},
        patch=reads(Register.INTERRUPT_STATUS, lambda _, v: v and v | 4),
    ),
    mutant(
        "takes all for acknowledged", "entropy", {"mmio.acknowledging-takes-back-what-it-names"}, make=AcknowledgesAll
    ),
    mutant("announces changes as used buffers", "balloon", {"mmio.change-sets-bit-1"}, make=AnnouncesAsUsed),
    mutant("serves a stopped queue", "entropy", {"mmio.queue-that-is-not-ready-is-left-alone"}, make=ServesStopped),
    mutant("swallows a kick", "entropy", {"mmio.notification-names-the-queue"}, make=SwallowsKicks),
    mutant(
        "takes data for a queue",
        "entropy",
        {"mmio.notification-carries-data"},
        patch=put_instead(MmioRegisters, "_write_queue_notify", _write_data_whole),
    ),
    mutant("serves a queue that was reset", "entropy", {"queue-reset.requests-are-dropped"}, make=ServesReset),
    mutant(
        "keeps a queue's positions",
        "entropy",
        {"queue-reset.begins-anew"},
        formats=(RingFormat.PACKED,),
        make=KeepsQueuePositions,
    ),
    mutant("keeps a queue's size", "entropy", {"queue-reset.another-size-and-place"}, make=KeepsQueueSize),
    mutant(
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
    mutant("resets all queues", "balloon", {"queue-reset.register-resets"}, make=ResetsAllQueues),
    mutant(
        "is always resetting what is ready",
        "entropy",
        {"queue-reset.registers-read-zero"},
        patch=reads(Register.QUEUE_RESET, lambda registers, v: int(bool(registers.device.queues))),
    ),
    mutant(
        "is always resetting after a reset",
        "entropy",
        {"queue-reset.registers-read-zero"},
        patch=reads(Register.QUEUE_RESET, lambda registers, v: int(registers.device.status == 0)),
    ),
]
