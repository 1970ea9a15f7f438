"""The address at which a server waits."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from miao.errors import MiaoError

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
BACKLOG = 2048
"""Connections that may wait to be taken."""


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address.

    Raises:
        MiaoError: the address is taken, or none of this machine's.
    """
    if not 0 <= port < 2**16:
        raise MiaoError(f"cannot listen at {host}:{port}: ports go from 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except (OSError, OverflowError) as error:
        raise MiaoError(
            f"cannot listen at {host}:{port}: {error}",
            fix="choose another --port (0: any free one), or stop what uses this one",
        ) from error
    return listening


def address_of(host: str, listening: socket.socket) -> str:
    """`http://host:port` of a socket bound to `host`."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def names_of(host: str, given: Sequence[str]) -> frozenset[str] | None:
    """Names by which clients may call a server that listens at `host`; None: any.

    Args:
        given: names beside those of this machine.
    """
    if not given and not is_loopback(host):
        return None
    return LOCAL_NAMES | {name.lower() for name in given} | {host.lower()}
