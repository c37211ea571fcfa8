"""What fails around a trial, and is no failure of the trial: a full disk, a used-up quota, a file server that is gone.

A trial that met with such a failure is interrupted, never failed, and the campaign waits until it is over.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

KNOWN: Mapping[int, str] = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EROFS: "the file system has become read-only",
    errno.ESTALE: "the file server does not know its files any more",
    errno.EIO: "the disk or the file server fails",
    errno.EREMOTEIO: "the file server fails",
    errno.ENOTCONN: "the file system is not mounted any more",
    errno.ESHUTDOWN: "the file system is not mounted any more",
    errno.ENODEV: "the file system is not there any more",
}
"""Error numbers of the operating system -> what they mean here."""
ROOM_BYTES = 4 * 2**20
"""So much must be writable again before anything goes on."""
_IN_TEXT = re.compile(r"\bos error (\d+)\b|\[Errno (\d+)\]")
"""How libraries that do not raise OSError write the number."""


@dataclass(frozen=True)
class Trouble:
    """A failure of the surroundings.

    Attributes:
        number: of the operating system's error.
        path: the file or folder where it showed.
    """

    number: int
    path: Path

    def __str__(self) -> str:
        return f"{KNOWN[self.number]}: {self.path}"


def trouble_of(error: BaseException, place: Path) -> Trouble | None:
    """The failure of the surroundings behind an error; None where there is none, and the error stands for itself.

    Args:
        error: what was raised, maybe because of another error.
        place: what was being written, where the error does not say.
    """
    for behind in _chain(error):
        number = behind.errno if isinstance(behind, OSError) and behind.errno is not None else _number(str(behind))
        if number in KNOWN:
            named = getattr(behind, "filename", None)
            if isinstance(named, (str, bytes, os.PathLike)) and named:
                return Trouble(number, Path(os.fsdecode(named)))
            return Trouble(number, _full(place, number))
    return None


def is_over(trouble: Trouble) -> bool:
    """Whether there can be written again where the trouble was."""
    folder = next(p for p in (trouble.path, *trouble.path.absolute().parents) if p.is_dir())
    return _can_write(folder)


def check_room(folder: Path) -> None:
    """Raise the OSError, with its path, with which writing into a folder fails."""
    probe = folder / f".room.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        with open(probe, "wb") as file:
            file.write(bytes(ROOM_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _full(place: Path, number: int) -> Path:
    """Which of the file systems that are written to is meant."""
    if number in (errno.ENOSPC, errno.EDQUOT) and place.is_dir() and _can_write(place):
        temporary = Path(tempfile.gettempdir())
        return place if _can_write(temporary) else temporary
    return place


def _can_write(folder: Path) -> bool:
    try:
        check_room(folder)
    except OSError:
        return False
    return True


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and those because of which it was raised."""
    current: BaseException | None = error
    seen: set[int] = set()
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _number(text: str) -> int:
    found = _IN_TEXT.search(text)
    return int(found[1] or found[2]) if found else 0
