"""The entropy device (virtio 1.4, "Entropy Device"): device 4. It has no features and no configuration space."""

__all__ = ["REQUEST_QUEUE"]

REQUEST_QUEUE = 0
"""The only queue: the driver places device-writable buffers, the device fills each with at least one random byte."""
