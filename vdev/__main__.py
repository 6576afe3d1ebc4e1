"""`python -m vdev` is the `vdev` command."""

from vdev.cli.main import main

main()
