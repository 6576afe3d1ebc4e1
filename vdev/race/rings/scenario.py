"""What is put into the ring lab: a ring, who uses it how, and how many buffers go through it."""

from dataclasses import asdict, dataclass
from typing import Any

from spec.device import Feature, feature_mask
from vdev.errors import UserError

__all__ = ["MODELS", "RingScenario"]

MODELS = ("tso", "sc")
"""How the processors order memory: x86-TSO, with a store buffer for each; or sequentially consistent, without."""

_CHOICES = {
    "format": ("split", "packed"),
    "driver": ("sleeping", "armed"),
    "device": ("notify", "until-empty"),
    "publishing": ("each", "together"),
}
_NUMBERS = {"size": (1, 64), "buffers": (1, 64), "segments": (1, 2), "start": (0, 0xFFFF)}


@dataclass(frozen=True)
class RingScenario:
    """One driver and one device over one ring, and what they do. Raises UserError for values that cannot be.

    `size` descriptors; `buffers` that go through, each of `segments` segments, in an `indirect` table or not. The
    driver publishes each buffer by itself or as many as fit together; it keeps calls off while it works (`sleeping`)
    or always on (`armed`). The device is a `vdev.device.Device` that is notified, or one that pops with kicks on until
    nothing is there. `batches` takes the numpy ways of both sides. `start` buffers have gone through before the race.
    """

    format: str = "split"
    event_idx: bool = True
    size: int = 2
    buffers: int = 2
    segments: int = 1
    indirect: bool = False
    in_order: bool = False
    batches: bool = False
    driver: str = "sleeping"
    device: str = "notify"
    publishing: str = "each"
    start: int = 0

    def __post_init__(self) -> None:
        for name, values in _CHOICES.items():
            if getattr(self, name) not in values:
                raise UserError(f"{name} cannot be {getattr(self, name)!r}; choose one of {', '.join(values)}")
        for name, (low, high) in _NUMBERS.items():
            if not low <= getattr(self, name) <= high:
                raise UserError(f"a ring race with {name} {getattr(self, name)}; give {low} to {high}")
        if self.format == "split" and self.size & (self.size - 1):
            raise UserError(f"a split ring of {self.size} descriptors; its size is a power of two")
        if self.segments > self.size:
            raise UserError(f"buffers of {self.segments} segments in a ring of {self.size}")
        if self.batches and self.segments > 1:
            raise UserError("batches are of buffers of one segment")

    @property
    def features(self) -> int:
        """The mask of negotiated features."""
        bits = [Feature.VERSION_1]
        bits += [Feature.EVENT_IDX] * self.event_idx + [Feature.INDIRECT_DESC] * self.indirect
        bits += [Feature.IN_ORDER] * self.in_order
        return feature_mask(*bits, *[Feature.RING_PACKED] * (self.format == "packed"))

    @property
    def label(self) -> str:
        """What is not usual about it, as one word: a file name."""
        usual = RingScenario()
        parts = [self.format, f"{self.buffers}-in-{self.size}"]
        parts += [] if self.event_idx else ["flags"]
        parts += [f"{self.segments}-segments"] * (self.segments > 1)
        parts += ["indirect"] * self.indirect + ["in-order"] * self.in_order + ["batches"] * self.batches
        parts += [
            getattr(self, name)
            for name in ("driver", "device", "publishing")
            if getattr(self, name) != getattr(usual, name)
        ]
        parts += [f"from-{self.start}"] * bool(self.start)
        return "+".join(parts)

    def __str__(self) -> str:
        ring = f"{self.buffers} {'buffer' if self.buffers == 1 else 'buffers'} of {self.segments} " + (
            "segment" if self.segments == 1 else "segments"
        )
        ring += f"{' in indirect tables' if self.indirect else ''} through a {self.format} ring of {self.size}"
        ring += f"{f' from {self.start} on' if self.start else ''}, {'EVENT_IDX' if self.event_idx else 'flags'}"
        ring += ", IN_ORDER" if self.in_order else ""
        ring += f", published {'one by one' if self.publishing == 'each' else 'together'}"
        return f"{ring}, {self.driver} driver, {self.device} device{', in batches' if self.batches else ''}"

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        return asdict(self)
