"""`python -m guest_agent --exits FD`: started by a host, never by a person."""

import socket
import sys

from guest_agent.process import run

if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] != "--exits":
        sys.exit("guest_agent is started by `vdev migrate` or `vdev receive`, which give it its hardware")
    sys.exit(run(socket.socket(fileno=int(sys.argv[2]))))
