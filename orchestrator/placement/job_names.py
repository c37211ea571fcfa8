"""Names of a campaign's Slurm jobs, by which they are told from all others of the same user."""

from __future__ import annotations

from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.folder.layout import CampaignFolder


def trial_jobs_name(spec: Campaign, folder: CampaignFolder) -> str:
    """Of jobs that run one trial each."""
    return f"coppice-{spec.name}-{folder.identity()}"


def pool_jobs_name(spec: Campaign, folder: CampaignFolder) -> str:
    """Of jobs that are nodes of a pool."""
    return f"coppice-pool-{spec.name}-{folder.identity()}"
