"""The `vdev` command: what a person types and reads."""
