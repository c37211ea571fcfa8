"""The report of a campaign: one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path

from coppice.orchestrator.folder.files import write_atomic
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.report.gather import gather
from coppice.orchestrator.report.page import render


def write_report(folder: Path) -> Path:
    """Write `report.html` into the folder of a campaign, finished or not, and return its path.

    Raises:
        FileNotFoundError: there is no campaign in the folder.
        ValueError: a file of the campaign is damaged; the message names it.
    """

    target = CampaignFolder(folder).report
    write_atomic(target, render(gather(folder)).encode())
    return target
