"""`python -m guest_agent --hardware JSON`: started by a host, never by a person."""

import json
import sys

from guest_agent.process import run

if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] != "--hardware":
        sys.exit("guest_agent is started by `vdev migrate` or `vdev receive`, which hand it its hardware")
    sys.exit(run(json.loads(sys.argv[2])))
