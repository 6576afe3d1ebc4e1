"""The judging device: the checks of drivers, what they see, and the games that it plays with a driver."""
