"""The report of a campaign: one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path


def write_report(folder: Path) -> Path:
    """Write `report.html` into the folder of a campaign, finished or not, and return its path.

    Raises:
        FileNotFoundError: there is no campaign in the folder.
        ValueError: a file of the campaign is damaged; the message names it.
    """
    from orchestrator.report.gather import gather
    from orchestrator.report.page import render
    from orchestrator.store import CampaignFolder, write_atomic

    target = CampaignFolder(folder).report
    write_atomic(target, render(gather(folder)).encode())
    return target
