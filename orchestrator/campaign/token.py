"""The secret of a campaign: what its Ray and its dashboard ask of everyone who talks to them."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from orchestrator.store import CampaignFolder

NAME = ".ray-token"
BYTES = 32


def token_file(folder: CampaignFolder) -> Path:
    """The file with the campaign's secret, which only its owner may read; made when it is missing.

    Several processes on several machines may ask at once: all get the same secret.

    Raises:
        PermissionError: others may read the file, and that cannot be changed, or somebody else owns it.
    """
    path = folder.path / NAME
    if not path.exists():
        _make(path)
    found = path.stat()
    if found.st_uid != os.geteuid():
        raise PermissionError(f"{path} must belong to you, but belongs to user {found.st_uid}; delete it, or ask them to.")
    if stat.S_IMODE(found.st_mode) & 0o077:
        path.chmod(0o600)
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise PermissionError(
                f"{path} must be readable by you alone, but the file system does not keep modes; choose another root."
            )
    return path


def _make(path: Path) -> None:
    """Write a whole secret beside `path` and give it that name, unless somebody was faster."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w") as file:
            file.write(secrets.token_hex(BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without links: two that ask in the same instant could differ, which Ray then says
            temporary.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
