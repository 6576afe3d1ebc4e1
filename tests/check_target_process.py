"""A back end in a few lines that behaves as it is told: python check_target_process.py SOCKET BEHAVIOUR.

It answers GET_FEATURES. The behaviour says what it does when it gets SET_OWNER, or when its front end leaves.
"""

import os
import signal
import socket
import struct
import sys
import time

GET_FEATURES, SET_OWNER, GET_PROTOCOL_FEATURES = 1, 3, 15
HEADER = struct.Struct("<III")


def misbehave(behaviour):
    name, _, value = behaviour.partition("=")
    if name == "signal":
        os.kill(os.getpid(), getattr(signal, value))
    elif name == "panic":
        print("thread 'main' panicked at src/main.rs:7:5: no descriptor", flush=True)
        os._exit(101)
    elif name == "exit":
        os._exit(int(value))
    elif name == "hang":
        if value:
            open(value, "x").close()  # says that it hangs
        time.sleep(3600)


def serve(connection, behaviour):
    while True:
        header = connection.recv(HEADER.size, socket.MSG_WAITALL)
        if len(header) < HEADER.size:
            return
        request, _, size = HEADER.unpack(header)
        if size:
            connection.recv(size, socket.MSG_WAITALL)
        if behaviour == "silent":
            continue
        if request in (GET_FEATURES, GET_PROTOCOL_FEATURES):
            connection.sendall(HEADER.pack(request, 5, 8) + struct.pack("<Q", 1 << 32))
        elif request == SET_OWNER:
            misbehave(behaviour)


def main(path, behaviour):
    if behaviour == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        print("listening", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                serve(connection, behaviour)
            if behaviour.startswith("once"):
                os._exit(int(behaviour.partition("=")[2] or 0))


main(*sys.argv[1:])
