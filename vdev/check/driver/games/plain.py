"""The device as every driver knows it."""

from vdev.check.driver.game import Game, game

__all__: list[str] = []


@game("plain")
class Plain(Game):
    """The device does what it is asked, at once."""

    enough = 16
