"""What the ranks of a trial say to each other on the way to their store: proofs of the secret, then messages in JSON."""

from __future__ import annotations

import hmac
import json
import os
import socket
import struct
import time
from typing import Any

NONCE = MAC = 32
"""Bytes."""
LEADS, FOLLOWS = b"leads", b"follows"
GREETING_S = 10.0
"""How long a peer may take to prove that it knows the secret."""
MOST_BYTES = 2**26
"""Of one message."""


class Refused(ConnectionError):
    """The other end does not know the secret."""


def prove(connection: socket.socket, secret: bytes, own: bytes, other: bytes) -> None:
    """Show that one knows the secret, without saying it, and that the other end does.

    Raises:
        OSError: it does not, or does not speak in time.
    """
    deadline = time.monotonic() + GREETING_S
    connection.settimeout(GREETING_S)
    nonce = os.urandom(NONCE)
    connection.sendall(nonce)
    asked = exactly(connection, NONCE, deadline)
    proof = hmac.digest(secret, own + asked + nonce, "sha256")
    if own == FOLLOWS:  # who listens says nothing to those who have not proved it
        connection.sendall(proof)
    if not hmac.compare_digest(exactly(connection, MAC, deadline), hmac.digest(secret, other + nonce + asked, "sha256")):
        raise Refused("the other end does not know the secret of these ranks.")
    if own == LEADS:
        connection.sendall(proof)
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a node without power says no goodbye
    for option, value in ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 8)):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


def exactly(connection: socket.socket, count: int, deadline: float | None = None) -> bytes:
    """So many bytes.

    Raises:
        ConnectionError: the other end has closed the connection.
        TimeoutError: they did not come before `deadline` (of `time.monotonic`).
    """
    parts = bytearray()
    while len(parts) < count:
        if deadline is not None:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
        part = connection.recv(min(count - len(parts), 65536))
        if not part:
            raise ConnectionError("the other end has closed the connection.")
        parts += part
    return bytes(parts)


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send one message."""
    content = json.dumps(message).encode()
    connection.sendall(struct.pack("!I", len(content)) + content)


def receive(connection: socket.socket) -> dict[str, Any]:
    """The next message; errors as those of `exactly`."""
    (count,) = struct.unpack("!I", exactly(connection, 4))
    if count > MOST_BYTES:
        raise ConnectionError(f"a message of {count} bytes is none of ours.")
    message: dict[str, Any] = json.loads(exactly(connection, count))
    return message
