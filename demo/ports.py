"""TCP ports on loopback that stay ours while a server is down between two starts."""

from __future__ import annotations

import random
import socket

# Below the range the kernel takes ports of outgoing connections from (ip_local_port_range): there,
# another program's connection can sit on the port when a killed server wants it back, and a client
# that keeps knocking at a closed port can end up connected to itself.
_RANGE = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Return `count` different ports nobody listens on; OSError if there are none."""
    found: list[int] = []
    for port in random.sample(_RANGE, len(_RANGE)):
        if is_free(port):
            found.append(port)
            if len(found) == count:
                return found
    raise OSError("no free TCP port on 127.0.0.1")


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Tell whether a server could listen on `port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True
