"""The limit of intake in Python: take events, answer, and do nothing with them.

python -m bench.bare_intake stream PATH      accept, recv, send "OK ()", close
python -m bench.bare_intake datagram PATH    recv
"""

import socket
import sys


def take_connections(path: str) -> None:
    """Answer one event per connection, one connection after the other, for ever."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(1024)
        while True:
            peer, _ = listener.accept()
            peer.recv(65536)
            peer.send(b"OK ()\r\n")
            peer.close()


def take_datagrams(path: str) -> None:
    """Receive for ever."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as intake:
        intake.bind(path)
        while True:
            intake.recv(65536)


if __name__ == "__main__":
    {"stream": take_connections, "datagram": take_datagrams}[sys.argv[1]](sys.argv[2])
