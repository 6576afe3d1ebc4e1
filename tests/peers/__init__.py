"""Real peers: guests, devices and drivers that others wrote, and how the tests start them."""
