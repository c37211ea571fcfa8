"""The folder of one Ray on this machine: only its owner may enter it, and it goes with the process that made it.

Ray makes its own temporary folder writable for everybody, with the sockets in it that its workers trust.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = "coppice."
LOCK = "in-use"
LONGEST_SOCKET = 107
BELOW = len("/r/session_2026-12-01_12-00-00_000000_4194304/sockets/plasma_store")
"""Characters: the longest of Ray's sockets, in a temporary folder `r` of the private one."""
REMOVE_S = 5.0
"""How long the last of Ray's processes may go on writing."""


@contextlib.contextmanager
def private_folder(where: str | None = None) -> Iterator[Path]:
    """Within: a new folder on this machine's disk that only this user may enter, with a path that is short enough for Ray.

    It is removed at the end. Those of this user's processes that were killed are removed first.

    Args:
        where: folder to make it in, if it is one and its path is short; None for the machine's temporary folder.

    Raises:
        OSError: no temporary folder of this machine can be written.
    """
    base = _base(where)
    _remove_dead(base)
    folder = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=base))
    with open(folder / LOCK, "ab") as lock:
        _lock(lock.fileno())
        folder = folder.rename(base / f"{PREFIX}{secrets.token_hex(3)}")
        try:
            yield folder
        finally:
            _remove(folder)


def _base(where: str | None) -> Path:
    """The first place that can be written and is not too deep."""
    room = LONGEST_SOCKET - BELOW - len(f"/{PREFIX}000000")
    places = [p for p in (where, tempfile.gettempdir(), "/tmp", "/var/tmp") if p and len(os.fsencode(p)) <= room]
    for place in places:
        if os.path.isdir(place) and os.access(place, os.W_OK | os.X_OK):
            return Path(place)
    raise OSError(
        f"Ray must have a temporary folder with a path of at most {room} characters that can be written, but none of "
        f"{', '.join(places) or tempfile.gettempdir()} is one; set TMPDIR to a short path on this machine's disk."
    )


def _remove_dead(base: Path) -> None:
    """Remove what processes of this user have left there that were killed."""
    for folder in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.lstat().st_uid != os.geteuid() or not (folder / LOCK).is_file():
                continue
            with open(folder / LOCK, "ab") as lock:
                if _lock(lock.fileno()):
                    shutil.rmtree(folder, ignore_errors=True)


def _lock(descriptor: int) -> bool:
    """Whether this process holds the lock now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove(folder: Path) -> None:
    deadline = time.monotonic() + REMOVE_S
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        if time.monotonic() > deadline:
            return
        if folder.exists():
            time.sleep(0.1)
