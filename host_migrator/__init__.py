"""The live migrator: which pages are still to send, how they travel, and when the guest stops and goes on."""
