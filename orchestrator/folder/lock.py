"""The lock file of a campaign: what exactly was run, with what versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.folder.files import read_json, write_json
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.origin import EARLIER, ORIGIN, code_changes, origin, read_lock
from coppice.references import moved

FORMAT = "coppice-campaign/2"
PACKAGES = ("coppice-nn", "torch", "ray", "optuna", "numpy", "pyarrow", "pydantic", "safetensors")


def require_same(old: Campaign, spec: Campaign) -> None:
    """Raise ValueError where `spec` is not the campaign `old` that it is to go on with; the message names what has changed."""
    changed = [key for key, value in _fixed(spec).items() if value != _fixed(old)[key]]
    if changed:
        raise ValueError(f"a resumed campaign must be as it was, but {', '.join(changed)} changed; give it another name.")


def changed_code(folder: CampaignFolder, spec: Campaign) -> list[str]:
    """What has changed in the code since the campaign ran last: modules of the user's, ours, versions of packages."""
    before = read_lock(folder.lock)
    return code_changes(before, _content(folder, spec, before))


def load_spec(folder: CampaignFolder) -> Campaign:
    """The campaign in a folder, under the name and place that the folder has now.

    Raises:
        FileNotFoundError: there is none.
    """
    if not folder.lock.exists():
        raise FileNotFoundError(f"{folder.path} must hold a campaign, but has no {folder.lock.name}; start it without resume.")
    here = Path(os.path.abspath(folder.path))  # not resolved: a link may lead elsewhere on other nodes
    saved = read_json(folder.lock)
    campaign = saved["campaign"]
    if "format" not in saved and "body" in campaign:  # of a version in which our own trial stood elsewhere
        campaign["body"] = moved(campaign["body"])
    spec = Campaign.model_validate({**campaign, "name": "any"})  # folders may have any name
    return spec.model_copy(update={"name": here.name, "root": here.parent})


def _fixed(spec: Campaign) -> dict[str, Any]:
    content = dump(spec)
    for key in ("name", "root", "resources", "placement", "compare"):
        content.pop(key)
    search = {**content.pop("search"), "mode": spec.search.mode}
    for key in ("trials", "max_concurrent"):
        search.pop(key)
    return {**content, **{f"search.{key}": value for key, value in search.items()}}


def dump(spec: Campaign) -> dict[str, Any]:
    """A campaign as its file would say it, everything written out."""
    return spec.model_dump(mode="json", by_alias=True)


def write_lock(folder: CampaignFolder, spec: Campaign) -> None:
    """Write down what exactly is run in the folder, with what versions; what ran before with other code is kept."""
    before = read_lock(folder.lock)
    content = _content(folder, spec, before)
    earlier = list(before.get(EARLIER, ()))
    if before and code_changes(before, content):
        earlier.append({key: before[key] for key in (*CODE, "written") if key in before})
    write_json(folder.lock, {**content, EARLIER: earlier})


CODE = (ORIGIN, "commit", "versions", "python")
"""Keys of the lock file that say what code ran."""


def _content(folder: CampaignFolder, spec: Campaign, before: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "campaign": dump(spec),
        "seed": spec.seed,
        "commit": _commit(),
        ORIGIN: origin(folder.path, spec.root / spec.name, before, dump(spec)),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "written": time.time(),
    }


def is_written(folder: CampaignFolder, spec: Campaign) -> bool:
    """Whether the lock file says what is run now."""
    before = read_lock(folder.lock)
    now = _content(folder, spec, before)
    return all(before.get(key) == now[key] for key in ("campaign", ORIGIN, "versions", "python"))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Commit of the Git repository that the campaign is started in, if it is one."""
    try:
        git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return git.stdout.strip() or None
