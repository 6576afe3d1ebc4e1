"""`vdev check`: whether a virtio device or driver follows the text, one verdict for each statement, with its evidence.

How the parts fit together is in docs/check.md.
"""
