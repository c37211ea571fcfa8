"""Where a campaign is at home, and with what code it runs: kept in its lock file, and used by whoever goes on with it.

A campaign is the one that its lock file tells of as long as its folder is the same, be it renamed; a copy is another campaign.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from coppice.orchestrator.folder.user_modules import digest, our_digest, root_of, users_modules
from coppice.orchestrator.working_directory import search_working_directory

ORIGIN, EARLIER = "origin", "earlier_code"
"""Keys of the lock file."""
Lock = Mapping[str, Any]


def read_lock(lock: Path) -> dict[str, Any]:
    """What is in the lock file; nothing where it is missing or damaged."""
    try:
        content = json.loads(lock.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def identity(path: Path, lock: Path) -> str:
    """A few letters that tell the campaign in a folder from all others, copies of it among them."""
    return _identity(path, read_lock(lock))


def _identity(path: Path, before: Lock) -> str:
    """Locks of earlier versions have none: their jobs are called by the path, and so are those of a copy before it is resumed."""
    saved = before.get(ORIGIN)
    return str(saved["identity"]) if saved and _same_place(saved, path) else _by_path(path)


def _by_path(path: Path) -> str:
    return f"{zlib.crc32(os.path.abspath(path).encode()):08x}"


def _same_place(saved: Mapping[str, Any], path: Path) -> bool:
    with contextlib.suppress(OSError):
        return bool(saved["path"] == os.path.abspath(path) or saved["inode"] == path.stat().st_ino)
    return bool(saved["path"] == os.path.abspath(path))


def origin(path: Path, place: Path, before: Lock, campaign: Mapping[str, Any]) -> dict[str, Any]:
    """What the lock file keeps of a campaign's place and code.

    Args:
        path: its folder.
        place: where that will be; it is prepared under another name.
        before: what is in the lock file now; empty for a new campaign.
        campaign: in its JSON form.
    """
    saved = before.get(ORIGIN)
    new = not before or (saved is not None and not _same_place(saved, path))
    modules = users_modules(campaign)
    return {
        "identity": secrets.token_hex(4) if new else _identity(path, before),
        "path": os.path.abspath(place),
        "inode": path.stat().st_ino,
        "working_folder": os.getcwd(),
        "import_roots": sorted({str(root_of(name, file)) for name, file in modules.items()}),
        "code": {name: digest(file) for name, file in modules.items()},
        "files": {name: str(file) for name, file in modules.items()},
        "coppice": our_digest(),
    }


def code_changes(before: Lock, now: Lock) -> list[str]:
    """What has changed in the code from one lock file to the next, in a few words each."""
    old, new = before.get(ORIGIN), now[ORIGIN]
    changes = []
    if old is not None:
        differ = [name for name, was in old["code"].items() if new["code"].get(name) != was]
        changes += [f"{name} ({new['files'].get(name, 'gone')})" for name in differ]
        changes += [f"{name} (new: {new['files'][name]})" for name in new["code"] if name not in old["code"]]
        if old["coppice"] != new["coppice"]:
            changes.append("Coppice itself")
    was, now_there = before.get("versions", {}), now["versions"]
    changes += [f"{name} {was[name]} -> {now_there[name]}" for name in was if name in now_there and was[name] != now_there[name]]
    if "python" in before and before["python"] != now["python"]:
        changes.append(f"Python {before['python']} -> {now['python']}")
    return changes


@contextlib.contextmanager
def at_home(path: Path, lock: Path) -> Iterator[None]:
    """Meanwhile this process, and what it starts, runs in the campaign's working folder, and finds its modules.

    Args:
        path: the campaign's folder, absolute.
        lock: its lock file, absolute.
    """
    saved = read_lock(lock).get(ORIGIN)
    here, searched, exported = os.getcwd(), list(sys.path), os.environ.get("PYTHONPATH")
    home = _home(saved, path) if saved else here
    if home == here:
        yield
        return
    os.chdir(home)
    given = (exported or "").split(os.pathsep)
    if here not in given:
        sys.path[:] = [entry for entry in sys.path if entry not in ("", here)]
    search_working_directory()
    roots = [root for root in saved["import_roots"] if Path(root).is_dir() and root not in (home, *sys.path)] if saved else []
    sys.path += roots
    os.environ["PYTHONPATH"] = os.pathsep.join([*filter(None, given), *roots])
    try:
        yield
    finally:
        os.chdir(here)
        sys.path[:] = searched
        os.environ.pop("PYTHONPATH")
        if exported is not None:
            os.environ["PYTHONPATH"] = exported


def _home(saved: Mapping[str, Any], path: Path) -> str:
    """The working folder of before; where the campaign was moved or copied together with its project, that of the project."""
    was = str(saved["working_folder"])
    if saved["path"] != str(path) and Path(saved["path"]).is_relative_to(was):
        moved = os.path.normpath(path / os.path.relpath(was, saved["path"]))
        inside = [os.path.relpath(file, was) for file in saved["files"].values() if Path(file).is_relative_to(was)]
        if inside and all(Path(moved, file).is_file() for file in inside):
            return moved
    return was if Path(was).is_dir() else os.getcwd()
