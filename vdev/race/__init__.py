"""The lab: every order of guest, handler and migrator, and the one that loses a page (docs/race.md)."""
