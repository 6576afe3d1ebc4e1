"""How a driver reads configuration space ("Device Configuration Space"), as virtio-mmio shows it."""

from vdev.check.driver.config_fields import field_feature, wide_fields
from vdev.check.driver.observation import ConfigRead, ConfigWritten, GenerationRead, Rested
from vdev.check.driver.picture import Picture
from vdev.check.driver.rule import Rule, rule, sees
from vdev.devices.kind import Carrier

__all__: list[str] = []

_MMIO = (Carrier.MMIO,)
_BLOCK = ("block",)


@rule(
    "config.wide-fields-by-generation",
    covers=["config.driver.2"],
    awaits="read a field of 64 bits",
    carriers=_MMIO,
    types=_BLOCK,
)
class WideFieldsByGeneration(Rule):
    """A field of 64 bits is read between two reads of ConfigGeneration."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._has_begun = False
        self._is_open = False

    @sees(GenerationRead)
    def generation(self, _: GenerationRead) -> None:
        """A bracket opens, or closes."""
        self._has_begun = True
        self._is_open = False

    @sees(ConfigRead)
    def read(self, seen: ConfigRead) -> None:
        """Look at halves."""
        wide = wide_fields(self.picture.device_type)
        if any(offset <= seen.offset < offset + 8 for offset in wide):
            self._is_open = True
            self.expect(
                self._has_begun,
                "config.driver.2",
                expected="ConfigGeneration read before a field of 64 bits",
                observed=f"{seen.size} bytes read at {seen.offset:#x} without that",
            )

    @sees(Rested)
    def rested(self, seen: Rested) -> None:
        """Look whether the bracket was closed."""
        if self._is_open and seen.is_certain:
            self.expect(
                False,
                "config.driver.2",
                expected="ConfigGeneration read after a field of 64 bits",
                observed="the driver rests, and has not looked",
            )


@rule(
    "config.torn-reads-are-repeated",
    covers=["config.driver.1"],
    awaits="read configuration space while it changed",
    carriers=_MMIO,
    types=("balloon", "block"),
)
class TornReadsAreRepeated(Rule):
    """What was read while the generation changed is read again."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self._bracket: int | None = None
        self._read: set[int] = set()
        self._torn: set[int] = set()

    @sees(ConfigRead)
    def read(self, seen: ConfigRead) -> None:
        """Collect what is read between two looks at the generation."""
        self._read.add(seen.offset)

    @sees(GenerationRead)
    def generation(self, seen: GenerationRead) -> None:
        """Look whether it changed in between: then all of that was torn, and the next reads must have it again."""
        if self._read and self._bracket is not None:
            if self._torn:
                left = self._torn - self._read
                self.expect(
                    not left,
                    "config.driver.1",
                    expected="every field read again after the generation changed",
                    observed=f"{', '.join(f'{each:#x}' for each in sorted(left))} not read again",
                )
            self._torn = set(self._read) if seen.value != self._bracket else set()
            self._read.clear()
        self._bracket = seen.value


@rule(
    "config.optional-fields",
    covers=["config.driver.3"],
    awaits="accessed a field that is there with a feature only",
    carriers=_MMIO,
    types=("balloon", "block"),
)
class OptionalFields(Rule):
    """A field that belongs to a feature is accessed only where that was offered."""

    @sees(ConfigRead, ConfigWritten)
    def field(self, seen: ConfigRead | ConfigWritten) -> None:
        """Look the field up."""
        name, feature = field_feature(self.picture.device_type, seen.offset)
        if feature is not None:
            self.expect(
                bool(self.picture.offered >> feature & 1),
                "config.driver.3",
                expected=f"{name} left alone: {feature.name} was not offered",
                observed=f"{seen.size} bytes accessed at {seen.offset:#x}",
            )
