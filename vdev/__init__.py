"""The host's side of virtio: guest memory, virtqueues, devices, transports, and the `vdev` command."""

__version__ = "0.1.0"
