"""What the campaign that a network comes from says about whose code may be run to build it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from coppice.methods.networks.catalog import network_reference
from coppice.orchestrator.folder.layout import CampaignFolder


def trusted_by_campaign_of(path: Path) -> list[str]:
    """The network and the data set that a campaign's own lock file names, as `package.module:attribute`.

    Args:
        path: the campaign, one of its trials, a checkpoint of one, or what was exported into its folder.

    Returns:
        Nothing where there is no campaign, or where its lock file belongs to somebody else, who could have written anything.
    """
    place = Path(os.path.abspath(path))
    for folder in (place, place.parent, place.parent.parent, place.parents[min(3, len(place.parents) - 1)]):
        lock = CampaignFolder(folder).lock
        try:
            if lock.stat().st_uid != os.geteuid():
                return []
            task: dict[str, Any] = json.loads(lock.read_bytes())["campaign"]["task"]
            return [network_reference(str(task["network"])), *([d] if ":" in (d := str(task["dataset"])) else [])]
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError):  # damaged: whoever needs the campaign says so
            return []
    return []
