"""Nothing of a trial reaches the next one on the same worker."""

import json
from pathlib import Path

import pytest

from coppice.orchestrator.campaign import run
from coppice.orchestrator.folder.layout import CampaignFolder
from tests.support.campaigns import campaign, ray

__all__ = ["ray"]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray")]
VANDAL = "tests.support.bodies:Vandal"
RANDOM = ("random", "numpy", "torch")


def test_every_trial_finds_the_worker_as_the_first_one_did(tmp_path: Path) -> None:
    spec = campaign(tmp_path, training={"epochs": 1}, search={"trials": 4, "max_concurrent": 1}, body=VANDAL)
    outcome = run(spec)
    assert [t.state for t in outcome.trials] == ["finished"] * 4, outcome.failed
    found = [json.loads((t.path / "found.json").read_bytes()) for t in CampaignFolder(outcome.folder).trials()]
    assert len({f["pid"] for f in found}) == 1, "the worker must be reused, or the test shows nothing"
    for index, later in enumerate(found[1:], 1):
        assert later["open_files"] == [f.replace("t0000", f"t000{index}") for f in found[0]["open_files"]]
        for key in found[0].keys() - {"open_files", "crc", *RANDOM}:
            assert later[key] == found[0][key], key
        assert all(later[key] != found[0][key] for key in RANDOM), "each trial has a seed of its own"


def test_randomness_depends_on_the_seed_only(tmp_path: Path) -> None:
    """The third trial on a worker draws what it draws as the first one on another."""
    spec = campaign(tmp_path, training={"epochs": 1}, search={"trials": 3, "max_concurrent": 1}, body=VANDAL)
    run(spec)
    run(spec.model_copy(update={"name": "d", "seed": 2, "search": spec.search.model_copy(update={"trials": 1})}))
    third, first = (json.loads((tmp_path / p / "found.json").read_bytes()) for p in ("c/trials/t0002", "d/trials/t0000"))
    assert {k: third[k] for k in RANDOM} == {k: first[k] for k in RANDOM}
