"""The small store through which the ranks of a trial meet: rank 0 keeps it, and lets in who knows the secret of this start.

PyTorch's own TCPStore listens on all interfaces and obeys whoever connects.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from coppice.orchestrator.trial.rank_protocol import FOLLOWS, LEADS, Refused, prove, receive, send

GREETINGS = 3
"""How often a peer greets whom it cannot reach or who is silent: the machine of the other may be busy."""
MOST_STRANGERS = 64
"""Connections that have not proved it yet; more are closed at once."""
MOST_TOLD = 20
"""Refused connections that are told of; a log must not be filled by strangers."""
_log = logging.getLogger(__name__)


class Board:
    """What the store holds, for the threads of this process."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._changed = threading.Condition()

    def call(self, operation: str, keys: Sequence[str], value: bytes, wait_s: float) -> bytes:
        """Carry out one operation of a store; numbers and truth come back in digits.

        Raises:
            TimeoutError: a key that is waited for was not set within `wait_s` seconds.
        """
        with self._changed:
            if operation in ("get", "wait") and not self._changed.wait_for(lambda: self._has(keys), wait_s):
                raise TimeoutError(f"{', '.join(keys)} was not set within {wait_s:g} s.")
            if operation == "get":
                return self._values[keys[0]]
            if operation in ("check", "count"):
                return b"%d" % (self._has(keys) if operation == "check" else len(self._values))
            answer = self._change(operation, keys[0], value) if operation != "wait" else b""
            self._changed.notify_all()
            return answer

    def _has(self, keys: Sequence[str]) -> bool:
        return all(key in self._values for key in keys)

    def _change(self, operation: str, key: str, value: bytes) -> bytes:
        if operation == "set":
            self._values[key] = value
        elif operation == "add":
            self._values[key] = b"%d" % (int(self._values.get(key, b"0")) + int(value))
        elif operation == "delete":
            return b"%d" % (self._values.pop(key, None) is not None)
        else:
            raise ValueError(f"a store has no operation {operation!r}.")
        return self._values[key]


class Gate:
    """Lets ranks on other machines at a board, at one address only, once they have proved that they know the secret.

    Args:
        board: what they share.
        address: of this machine, as the others know it.
        secret: of this start.
    """

    def __init__(self, board: Board, address: str, secret: bytes) -> None:
        self._board, self._secret = board, secret
        self._listener = _listener(address)
        self.port: int = self._listener.getsockname()[1]
        self._refused = 0
        self._strangers = threading.BoundedSemaphore(MOST_STRANGERS)
        threading.Thread(target=self._accept, name="rank-store", daemon=True).start()

    def close(self) -> None:
        """Let nobody in any more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, (host, *_) = self._listener.accept()
            except OSError:
                if self._listener.fileno() < 0:
                    return
                time.sleep(0.1)  # out of descriptors for now
                continue
            if self._strangers.acquire(blocking=False):
                threading.Thread(target=self._serve, args=(peer, host), name="rank-store-peer", daemon=True).start()
            else:
                peer.close()

    def _serve(self, peer: socket.socket, host: str) -> None:
        with peer, contextlib.suppress(OSError, ValueError, KeyError, TypeError, IndexError):
            try:
                prove(peer, self._secret, LEADS, FOLLOWS)
            except OSError:
                self._refused += 1
                if self._refused <= MOST_TOLD:
                    _log.warning("A connection from %s to the ranks was refused: it does not know their secret.", host)
                return
            finally:
                self._strangers.release()
            while True:
                send(peer, self._answer(receive(peer)))

    def _answer(self, request: dict[str, Any]) -> dict[str, str]:
        try:
            value = bytes.fromhex(request["value"])
            answer = self._board.call(str(request["operation"]), [str(k) for k in request["keys"]], value, request["wait_s"])
            return {"value": answer.hex()}
        except TimeoutError as error:
            return {"error": str(error)}


class Peer:
    """Another rank's way to the board: a connection for each of its threads, since a wait holds one up."""

    def __init__(self, address: str, port: int, secret: bytes, within_s: float) -> None:
        self._where, self._secret = (address, port), secret
        self._own = threading.local()
        self._within_s = within_s
        self._connection()

    def _connection(self) -> socket.socket:
        if not hasattr(self._own, "socket"):
            self._own.socket = self._met()
        made: socket.socket = self._own.socket
        return made

    def _met(self) -> socket.socket:
        """A connection on which both ends have proved that they know the secret."""
        for left in reversed(range(GREETINGS)):
            connection = socket.create_connection(self._where, self._within_s)
            try:
                prove(connection, self._secret, FOLLOWS, LEADS)
                return connection
            except OSError as error:
                connection.close()
                if not left or isinstance(error, Refused):
                    raise
                time.sleep(1.0)
        raise AssertionError("the last greeting returns or raises.")

    def call(self, operation: str, keys: Sequence[str], value: bytes, wait_s: float) -> bytes:
        """As `Board.call`.

        Raises:
            ConnectionError: rank 0 is gone.
        """
        connection = self._connection()
        send(connection, {"operation": operation, "keys": list(keys), "value": value.hex(), "wait_s": wait_s})
        answer = receive(connection)
        if "error" in answer:
            raise TimeoutError(answer["error"])
        return bytes.fromhex(answer["value"])


class RankStore(dist.Store):  # type: ignore[name-defined]
    """A store of torch.distributed on a board, here or at rank 0."""

    def __init__(self, board: Board | Peer, within: timedelta) -> None:
        super().__init__()
        self._board, self._within = board, within

    def _call(self, operation: str, keys: Sequence[str], value: bytes = b"", within: timedelta | None = None) -> bytes:
        try:
            return self._board.call(operation, keys, value, (within or self._within).total_seconds())
        except OSError as error:
            raise dist.DistStoreError(f"the connection to the store of the ranks: {error}") from error

    def set(self, key: str, value: str | bytes) -> None:
        """Set a key."""
        self._call("set", [key], value.encode() if isinstance(value, str) else bytes(value))

    def get(self, key: str) -> bytes:
        """The value of a key, once there is one."""
        return self._call("get", [key])

    def add(self, key: str, amount: int) -> int:
        """Add to a number; returns the sum."""
        return int(self._call("add", [key], b"%d" % amount))

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        """Until all keys are set."""
        self._call("wait", keys, within=timeout)

    def check(self, keys: list[str]) -> bool:
        """Whether all keys are set."""
        return self._call("check", keys) == b"1"

    def delete_key(self, key: str) -> bool:
        """Forget a key; returns whether there was one."""
        return self._call("delete", [key]) == b"1"

    def num_keys(self) -> int:
        """How many keys there are."""
        return int(self._call("count", []))

    deleteKey, getNumKeys = delete_key, num_keys
    """Under the names by which torch calls them from C++."""

    def set_timeout(self, timeout: timedelta) -> None:
        """How long a `get` or `wait` without a limit of its own may take."""
        self._within = timeout

    @property
    def timeout(self) -> timedelta:
        """How long a `get` or `wait` without a limit of its own may take."""
        return self._within

    def clone(self) -> RankStore:
        """The same store: threads do not get into each other's way."""
        return self


def _listener(address: str) -> socket.socket:
    """Listens on the address by which the others know this machine; where that is none of its own, on all."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.bind((address, 0))
    except OSError:
        listener.bind(("", 0))
    listener.listen(256)
    return listener
