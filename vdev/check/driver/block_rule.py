"""What all rules for block drivers share: the request in a chain, and the device's limits as the driver read them."""

from spec.block import CONFIG
from vdev.check.driver.balloon_rule import DueRule
from vdev.check.driver.block_request import BlockRequest, read_request
from vdev.check.driver.config_access import ConfigAsRead
from vdev.check.driver.observation import ChainMadeAvailable, ConfigRead
from vdev.check.driver.picture import Picture
from vdev.check.driver.rule import sees

__all__ = ["BlockRule"]


class BlockRule(DueRule):
    """A rule for block drivers."""

    def __init__(self, picture: Picture) -> None:
        super().__init__(picture)
        self.config = ConfigAsRead(CONFIG)
        """The device's limits, as far as the driver knows them."""

    def request(self, seen: ChainMadeAvailable, request: BlockRequest) -> None:
        """Look at a request."""

    def unreadable(self, seen: ChainMadeAvailable, lack: str) -> None:
        """Look at a chain that is none."""

    def reads(self, seen: ConfigRead) -> None:
        """Look at what the driver reads, after it was noted."""

    @sees(ChainMadeAvailable)
    def _available(self, seen: ChainMadeAvailable) -> None:
        found = read_request(self.picture.memory, seen.chain)
        if isinstance(found, str):
            self.unreadable(seen, found)
        else:
            self.request(seen, found)

    @sees(ConfigRead)
    def _read(self, seen: ConfigRead) -> None:
        self.config.note(seen)
        self.reads(seen)
