"""Names of a campaign's Slurm jobs, by which they are told from all others of the same user."""

from __future__ import annotations

import re

from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.folder.layout import CampaignFolder


def trial_jobs_name(spec: Campaign, folder: CampaignFolder) -> str:
    """Of jobs that run one trial each."""
    return _name("coppice", spec, folder)


def pool_jobs_name(spec: Campaign, folder: CampaignFolder) -> str:
    """Of jobs that are nodes of a pool."""
    return _name("coppice-pool", spec, folder)


def driver_jobs_name(spec: Campaign, folder: CampaignFolder) -> str:
    """Of jobs that drive a campaign."""
    return _name("coppice-driver", spec, folder)


def _name(kind: str, spec: Campaign, folder: CampaignFolder) -> str:
    """Without what Slurm's commands, and those who read their output, take for an end: a renamed folder may have any name."""
    return f"{kind}-{re.sub(r'[^A-Za-z0-9_.-]', '_', spec.name)}-{folder.identity()}"
