"""Runs campaigns: samples trials, has Ray Tune run them in a placement, and goes on after an interruption."""

from coppice.orchestrator.campaign.run import Outcome, run
from coppice.orchestrator.folder.lock import load_spec
from coppice.orchestrator.operations.status import StatusBoard, TrialStatus, status

__all__ = ["Outcome", "StatusBoard", "TrialStatus", "load_spec", "run", "status"]
