"""Who starts whom: host, guest and migrator as tasks of one loop, or as processes."""
