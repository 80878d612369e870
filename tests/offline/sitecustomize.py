"""Blocks the network in every Python process that starts with this folder on its PYTHONPATH.

`conftest.py` loads it and puts the folder there: it holds in tests, in their subprocesses, in
the kernels of notebooks. Loopback, Unix sockets and the machine's own name stay open. The error is
no ``OSError``, so that code which takes a missing network in its stride fails too.
"""

import ipaddress
import socket
import sys


class NetworkBlocked(RuntimeError):
    pass


def _is_here(host: object) -> bool:
    if not isinstance(host, (str, bytes)):  # none at all, or not an internet address
        return True
    name = host.decode() if isinstance(host, bytes) else host
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name.lower() in ("", "localhost", socket.gethostname().lower())
    return address.is_loopback or address.is_unspecified


def _hook(event: str, arguments: tuple) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) and address else None
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    if not _is_here(host):
        raise NetworkBlocked(f"{event} to {host!r}: the course and its tests work offline")


sys.addaudithook(_hook)
