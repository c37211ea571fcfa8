"""The campaigns of README, pages and `campaigns/` run, in a short form; those of pages that are followed whole run there."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import coppice
from coppice.orchestrator.planning.source import parse
from tests.docs.pages import PAGES, ROOT, blocks
from tests.docs.test_pages import WHOLE
from tests.support.campaigns import ray

__all__ = ["ray"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray")]
SHOWN = {
    **{f"{page.name} {i}": b.text for page in PAGES if page.name not in WHOLE
       for i, b in enumerate(b for b in blocks(page) if b.language == "yaml")},
    **{file.name: file.read_text() for file in sorted((ROOT / "campaigns").glob("*.yaml"))},
}  # fmt: skip
SOONER = ((r"every: \d+", "every: 1"), (r"patience: \d+", "patience: 1"))
"""So that everything happens within few epochs."""


def pictures(data_dir: Path | None = None, seed: int = 0) -> coppice.Dataset:
    """Stands for data that is not on this machine: colour pictures of ten classes."""
    draws = torch.Generator().manual_seed(seed)
    split = coppice.Split(torch.rand(48, 3, 32, 32, generator=draws), torch.arange(48) % 10)
    return coppice.Dataset("pictures", split, split, None, "classification", 10, (3, 32, 32))


def short(text: str, root: Path) -> dict[str, Any]:
    """A campaign as it is shown, with few trials, epochs and samples, on this machine."""
    for pattern, instead in SOONER:
        text = re.sub(pattern, instead, text)
    tree: dict[str, Any] = parse(text)
    task = tree["task"]
    if task.pop("data_dir", None) is None:
        task["dataset_args"] = {**task.get("dataset_args", {}), "limit_train": 100, "limit_eval": 50}
    else:
        task["dataset"] = f"{__name__}:pictures"
    tree["training"] |= {"epochs": 4, "batch_size": 24}
    tree["search"] |= {"trials": 2}
    return {**tree, "root": root, "placement": "local", "resources": {"cpus": 1}}


@pytest.mark.parametrize("name", SHOWN)
def test_it_runs(name: str, tmp_path: Path) -> None:
    spec = coppice.Campaign.model_validate(short(SHOWN[name], tmp_path))
    outcome = coppice.run(spec)
    assert outcome.state == "finished" and not outcome.failed, [t.reason for t in outcome.failed]
    changes = [line for events in outcome.folder.glob("trials/*/events.jsonl") for line in events.read_text().splitlines()
               if '"structural"' in line]  # fmt: skip
    assert changes, "no network has changed"


def test_all_are_there() -> None:
    assert {"README.md 0", "cluster.md 0", "quickstart.yaml"} <= set(SHOWN)
