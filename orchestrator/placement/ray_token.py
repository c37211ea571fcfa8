"""The secret of a campaign: what its Ray and its dashboard ask of everyone who talks to them."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys
from pathlib import Path

from coppice.orchestrator.folder.layout import CampaignFolder

BYTES = 32
NAMES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""Where Ray looks for its secret."""
OURS = "COPPICE_RAY_AUTH"
"""Environment variable: the value that was set here, and so is not the user's; also for processes that inherit it."""


def token_file(folder: CampaignFolder) -> Path:
    """The file with the campaign's secret, which only its owner may read; made when it is missing.

    Several processes on several machines may ask at once: all get the same secret.

    Raises:
        PermissionError: somebody else owns the file, or others may read it and that cannot be changed.
    """
    path = folder.ray_token
    if not path.exists():
        _make(path)
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{path} must belong to you, but belongs to user {status.st_uid}; ask them to delete it.")
    if stat.S_IMODE(status.st_mode) & 0o077:
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
        except OSError:  # a file system without links: two that ask in the same instant may differ, and Ray refuses one of them
            temporary.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def use_token(folder: CampaignFolder | None) -> Path | None:
    """Let a Ray that is started or joined by this process or its children ask for the campaign's secret; returns its file.

    Without a folder the secret is one that nobody else knows. A secret that the user has set stays; None is returned where it
    is not in a file. Call this while no Ray is up in this process.
    """
    given = next((name for name in NAMES if os.environ.get(name)), None)
    if given is not None and os.environ[given] != os.environ.get(OURS):
        return Path(os.environ[given]) if given.endswith("PATH") else None
    for name in NAMES:
        os.environ.pop(name, None)
    path = None if folder is None else token_file(folder)
    name, value = (NAMES[0], secrets.token_hex(BYTES)) if path is None else (NAMES[1], str(path))
    os.environ[name] = os.environ[OURS] = value
    if "ray" in sys.modules:  # Ray remembers the first secret that it was asked for
        from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

        AuthenticationTokenLoader.instance().reset_cache()
    return path
