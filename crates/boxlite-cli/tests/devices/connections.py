# Opens more connections than a box of 20 may have, closes them, and opens as many as it may have again. Arguments: address
# and port of a server that echoes.
import socket
import sys


def open_all(count):
    streams, refused = [], 0
    for _ in range(count):
        try:
            stream = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20)
        except ConnectionRefusedError:
            refused += 1
            continue
        stream.sendall(b"x")
        assert stream.recv(1) == b"x"
        streams.append(stream)
    print(len(streams), "open,", refused, "refused", flush=True)
    for stream in streams:
        # The server closes its side when it has read everything: its end is the last that the wire carries.
        stream.shutdown(socket.SHUT_WR)
        assert stream.recv(1) == b""
        stream.close()


open_all(40)
open_all(20)
