"""The devices: one module or package per virtio device type."""
