"""The end that a check holds in its hands: guarded memory, raw rings, and what carries them to the device."""
