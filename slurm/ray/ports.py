"""Blocks of ports that one Ray has for itself, also beside other jobs of the same user on the same machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

FIRST, LAST = 20000, 31999
"""Above the ports that the workers of other Rays take by default (10002 to 19999), below those of clients (from 32768)."""


class NoPorts(RuntimeError):
    """No block of ports is free."""


@contextlib.contextmanager
def reserved(width: int, start: int, first: int = FIRST, last: int = LAST) -> Iterator[range]:
    """Within: `width` consecutive ports that nobody listens on, and that no other process of this user may reserve here.

    Args:
        width: how many.
        start: number of the block that is tried first; jobs that start with different ones seldom meet.
        first: lowest port.
        last: highest port.

    Raises:
        NoPorts: there is no such block.
    """
    blocks = (last - first + 1) // width
    with contextlib.ExitStack() as held:
        for offset in range(blocks):
            low = first + (start + offset) % blocks * width
            block = range(low, low + width)
            with contextlib.ExitStack() as trying:
                if not trying.enter_context(_lock(block)) or not _free(block):
                    continue
                held.push(trying.pop_all())
            yield block
            return
    raise NoPorts(f"a Ray needs {width} free ports in a row, but {socket.gethostname()} has none from {first} to {last}.")


@contextlib.contextmanager
def _lock(block: range) -> Iterator[bool]:
    """Whether nobody else of this user holds any of these ports; held by locks that end with this process, however it ends."""
    folder = _own_folder()
    if folder is None:  # whether ports are free is then all that can be known
        yield True
        return
    with contextlib.ExitStack() as held:
        for cell in range(block.start // CELL, (block.stop - 1) // CELL + 1):
            file = held.enter_context(open(folder / str(cell), "ab"))
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            except OSError:  # a file system without locks
                continue
        yield True


def _own_folder() -> Path | None:
    """The folder of this machine's with this user's locks; None where others have taken every name for it.

    Anyone may make anything in the temporary folder: what somebody else has made there, or may change, is left alone and the next
    name taken, which all processes of this user come to in the same way.
    """
    for number in range(PLACES):
        folder = Path(tempfile.gettempdir()) / f".coppice-ports-{os.geteuid()}{f'-{number}' if number else ''}"
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700)
        try:
            found = folder.lstat()
        except OSError:
            continue
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077:
            return folder
    return None


PLACES = 100
"""Names that are tried for the folder with the locks."""
CELL = 40
"""Ports under one lock, so that blocks of different widths cannot overlap unseen."""


def _free(block: range) -> bool:
    with contextlib.ExitStack() as held:
        for port in block:
            listener = held.enter_context(socket.socket())
            try:
                listener.bind(("", port))
            except OSError:
                return False
    return True
