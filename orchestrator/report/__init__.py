"""The report of a campaign: one self-contained HTML page."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

from coppice.orchestrator.folder.files import write_atomic
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.report.gather import gather
from coppice.orchestrator.report.page import render


def write_report(folder: Path) -> Path:
    """Write `report.html` into the folder of a campaign, finished or not, and return its path.

    Where the folder is somebody else's, or read-only, the page is written into a new folder below the machine's temporary one.

    Raises:
        FileNotFoundError: there is no campaign in the folder.
        ValueError: a file of the campaign is damaged; the message names it.
    """

    target = CampaignFolder(folder).report
    page = render(gather(folder)).encode()
    try:
        write_atomic(target, page)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        target = Path(tempfile.mkdtemp(prefix=f"coppice-{target.parent.absolute().name}-")) / target.name
        write_atomic(target, page)
    return target
