"""Files that survive the death of their writer: atomic writes, JSON, and locks that end with the process that holds them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import stat
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SEAL = re.compile(rb',"crc":"([0-9a-f]{8})"}\s*$')
REMEDIES = {
    "params.json": "restore it from a copy, or delete the trial's folder",
    "attempt.json": "delete it when no job of the trial runs",
    "request.json": "delete it: the trial's next job then asks for what the campaign says",
    "ranks.json": "delete it: it is written anew",
    "dashboard.json": "delete it: it is written anew",
}
"""What to do about a damaged file, by its name."""


def write_atomic(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write `path` so that it has either its old content or all of the new one, also after a power cut.

    Where it is `private`, nobody else may read it, at any time.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb", opener=_private if private else None) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_EXCL, 0o600)


def read_private(path: Path) -> bytes:
    """The content of a file whose word counts, such as a secret: nobody else may have written or read it.

    Raises:
        PermissionError: somebody else owns the file, or may read or write it.
    """
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise PermissionError(
                f"{path} must belong to you, with access for you alone (0600), but belongs to user {status.st_uid} with mode "
                f"{stat.S_IMODE(status.st_mode):04o}; delete it, and choose a root on a file system that keeps owners and modes."
            )
        return file.read()


def write_json(path: Path, value: Any) -> None:
    """`write_atomic` for a JSON-able value; an object gets a checksum, its last key `crc`."""
    content = json.dumps(value).encode()
    if isinstance(value, dict) and value:
        content = content[:-1] + b',"crc":"%08x"}' % zlib.crc32(content)
    write_atomic(path, content)


def read_json(path: Path) -> Any:
    """What `write_json` wrote. A file of earlier versions, or one that a tool wrote anew, has no checksum that could be wrong.

    Raises:
        ValueError: the file is damaged, or was changed by hand; the message names it and says what to do.
    """
    content = path.read_bytes()
    try:
        value = json.loads(content)
    except ValueError:
        raise ValueError(f"{path} must be a JSON file, but is damaged; {_remedy(path)}.") from None
    seal = SEAL.search(content)
    if seal and isinstance(value, dict):
        value.pop("crc", None)
        if zlib.crc32(content[: seal.start()] + b"}") != int(seal[1], 16):
            raise ValueError(
                f"{path} was changed after it was written (its checksum is another one); {_remedy(path)}. Where the change is "
                "meant: take out its last key, crc."
            )
    return value


def _remedy(path: Path) -> str:
    return REMEDIES.get(path.name, "restore it from a copy")


@contextlib.contextmanager
def exclusive(path: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path`. The lock ends with the process that holds it, however that dies.

    On a file system without locks nothing is held. What the holder writes into the file is shown to those who want it.

    Raises:
        BlockingIOError: another process still holds it after `wait_s` seconds.
    """
    with open(path, "ab", opener=_lockable) as file:
        deadline = time.monotonic() + wait_s
        while not _lock(file.fileno()):
            if time.monotonic() >= deadline:
                said = path.read_text(errors="replace").strip()
                raise BlockingIOError(
                    f"{path} is held by another process{f' ({said})' if said else ''}; wait until it has ended."
                )
            time.sleep(0.1)
        yield


def _lockable(path: str, flags: int) -> int:
    """A lock file is its owner's alone: who may open it may hold it, too, and keep the campaign from going on."""
    descriptor = os.open(path, flags, 0o600)
    status = os.fstat(descriptor)
    if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) & 0o077:
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, 0o600)
    return descriptor


def held(path: Path) -> bool:
    """Whether a process holds the lock file `path`: asked without writing, and by whoever may look into its folder."""
    try:
        with open(path, "rb") as file:
            return not _lock(file.fileno(), fcntl.LOCK_SH)
    except FileNotFoundError:
        return False
    except PermissionError:
        return _held_here(path)


def _held_here(path: Path) -> bool:
    """Whether a process of this machine holds it, as the kernel tells everybody."""
    status = path.stat()
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        locks = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return False
    return any(place in line.split() and "->" not in line for line in locks)


@contextlib.contextmanager
def written_by_us_alone() -> Iterator[None]:
    """Within: what this process and its children make can be written by their user alone, whatever the umask lets others do.

    Whoever can change a campaign's files decides what is run. Who may read them stays as the umask says.
    """
    before = os.umask(0o077)
    os.umask(before | OTHERS_WRITE)
    try:
        yield
    finally:
        os.umask(before)


OTHERS_WRITE = 0o022


def _lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
    return True
