"""Campaigns: many trials, searched."""

from orchestrator.campaign.lock import load_spec
from orchestrator.campaign.running import Outcome, run
from orchestrator.status import StatusBoard, TrialStatus, status

__all__ = ["Outcome", "StatusBoard", "TrialStatus", "load_spec", "run", "status"]
