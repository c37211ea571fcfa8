"""What could run but makes no sense, and is refused before a campaign starts. One that has begun with it goes on as it is."""

from __future__ import annotations

from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.planning.metrics import check_modes
from coppice.orchestrator.planning.problems import Faults


def check_sense(spec: Campaign) -> Faults:
    """What makes no sense in a campaign whose parts are fine by themselves."""
    yield from check_modes(spec.search)
