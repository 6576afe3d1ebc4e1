"""Messages of the vhost-user protocol as bytes with file descriptors beside them: cut out of a stream, and built."""
