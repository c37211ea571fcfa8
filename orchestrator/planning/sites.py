"""A campaign as it would be handed in at a Slurm site."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.config.placement import JobPlacement, LocalPlacement

At = Callable[[Campaign], Campaign]
"""Fills in where a campaign is to run, before that is checked."""


def at_site(site: str, account: str | None) -> At:
    """Places a campaign's trials as jobs at a site, unless its file places them already; what it leaves out is filled in."""

    def at(spec: Campaign) -> Campaign:
        placement = JobPlacement() if isinstance(spec.placement, LocalPlacement) else spec.placement
        defaults: dict[str, Any] = {"site": site, **({"account": account} if account else {})}
        if isinstance(placement, JobPlacement):  # a pool's nodes would answer whoever asks for metrics
            defaults["dashboard"] = True
        left_out = {key: value for key, value in defaults.items() if key not in placement.model_fields_set}
        placement = placement.model_copy(update=left_out)
        return spec.model_copy(update={"placement": placement, "root": spec.root.absolute()})

    return at
