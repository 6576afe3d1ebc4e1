#!/bin/sh
# Build the device and judge it. The status is 0 if it breaks no MUST, and 1 if it does, crashes or hangs.
set -eu
cd "$(dirname "$0")"
cc -std=c11 -O2 -Wall -Wextra -Werror -o entropy entropy.c
vdev check device entropy.sock --type entropy --spawn "./entropy {socket}" \
  --junit report.xml --html report.html --json report.json
