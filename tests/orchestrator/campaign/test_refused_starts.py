"""A start that is refused leaves nothing behind, and the corrected one runs; a refused resume leaves the campaign as it was."""

from pathlib import Path

import pytest

from coppice.orchestrator.campaign import driver, run
from coppice.orchestrator.cli.submit import driver_request
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.slurm.client import SlurmError
from coppice.slurm.site import load_site
from tests.orchestrator.folder.test_opening import tree
from tests.support.campaigns import campaign, ray
from tests.support.slurm.stand_ins import FakeClient

__all__ = ["ray"]
TOO_LARGE = {"cpus": 64}


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_a_trial_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a trial must fit into the placement"):
        run(campaign(tmp_path / "runs", resources=TOO_LARGE))
    assert list(tmp_path.iterdir()) == []
    small = {"search": {"trials": 1}}
    assert run(campaign(tmp_path / "runs", **small)).state == "finished"
    before = {name: content for name, content in tree(tmp_path).items() if "tune" not in name}
    with pytest.raises(ValueError, match="a trial must fit into the placement"):
        run(campaign(tmp_path / "runs", search={"trials": 2}, resources=TOO_LARGE), resume=True)
    assert {name: content for name, content in tree(tmp_path).items() if "tune" not in name} == before
    assert run(campaign(tmp_path / "runs", search={"trials": 2}), resume=True).state == "finished"


class Refuses(FakeClient):
    """Takes no job."""

    def run(self, *command: str, patience_s: float | None = None) -> str:
        assert CampaignFolder(Path(command[-1]).parents[1]).lock.exists(), "a driver may start at once"
        raise SlurmError("sbatch: error: Batch job submission failed: Invalid account")


def test_a_driver_that_slurm_does_not_take(tmp_path: Path) -> None:
    spec, site = campaign(tmp_path / "runs", placement={"job": {"site": "generic"}}), load_site("generic")
    for _ in range(2):
        with pytest.raises(SlurmError, match="Invalid account"):
            driver.submit(spec, site, driver_request(None, 1.0), Refuses())
        assert list(tmp_path.iterdir()) == []
