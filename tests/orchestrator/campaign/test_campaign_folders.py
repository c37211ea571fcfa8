"""What people do to the folders of trials: deleted, copied, renamed, they end no campaign and become no trial."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from coppice.orchestrator.campaign import run, status
from coppice.orchestrator.campaign.sampler import Sampler
from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.trials import TrialRecords
from tests.support.campaigns import campaign, ray

__all__ = ["ray"]


def searched(spec: Campaign, records: TrialRecords, upto: int) -> dict[str, dict[str, object]]:
    """Trials as the sampler gives them up to a number, written down without being run; the sampled values of all."""
    sampler = Sampler(spec)
    sampler.restore(records.entries())
    while records.next_number() < upto:
        number = records.next_number()
        sample = sampler.ask(number)
        assert sample is not None
        records.add(f"t{number:04d}", sample.tree, number, sample)
        records.mark(f"t{number:04d}", "failed")
        sampler.tell(number, "failed", [])
    return {e.id: e.params for e in records.entries()}


@pytest.mark.parametrize("sampler", ["random", "tpe", "grid", "nsga2"])
def test_gaps_change_nothing_for_later_trials(tmp_path: Path, sampler: str) -> None:
    x = {"choice": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}
    spec = campaign(tmp_path, {"x": x}, search={"trials": 6, "sampler": sampler})
    records, whole = (TrialRecords(CampaignFolder(tmp_path / name)) for name in ("c", "whole"))
    searched(spec, records, 4)
    for name in ("t0001", "t0003"):
        shutil.rmtree(records.folder.trials_path / name)
    values, expected = searched(spec, records, 6), searched(spec, whole, 6)
    assert list(values) == ["t0000", "t0002", "t0004", "t0005"]
    assert values == {name: expected[name] for name in values}
    assert ["t0001, t0003" in said and "search.trials" in said for said in records.remarks()] == [True]


@pytest.mark.slow
@pytest.mark.usefixtures("ray")
def test_a_campaign_goes_on_without_a_deleted_trial_and_leaves_copies_alone(tmp_path: Path) -> None:
    spec = campaign(tmp_path, training={"epochs": 1}, search={"trials": 3})
    run(spec)
    trials = tmp_path / "c" / "trials"
    shutil.copytree(trials / "t0000", trials / "t0000.bak")
    shutil.rmtree(trials / "t0002")
    said: list[str] = []
    outcome = run(spec.model_copy(update={"search": spec.search.model_copy(update={"trials": 4})}), resume=True, say=said.append)
    assert [t.id for t in outcome.trials] == [t.id for t in status(tmp_path / "c")] == ["t0000", "t0001", "t0003"]
    assert outcome.state == "finished" and len(said) == 2 and "t0000.bak" in said[0] and "t0002" in said[1]


def test_a_trial_that_never_ran_gets_its_number_back(tmp_path: Path) -> None:
    spec, records = campaign(tmp_path), TrialRecords(CampaignFolder(tmp_path / "c"))
    searched(spec, records, 2)
    records.folder.trial("t0002")  # its driver was killed before it wrote down what the trial is
    assert records.next_number() == 2 and records.remarks() == []
    records.folder.next_number.write_text("")
    assert records.next_number() == 2
    assert list(searched(spec, records, 3)) == ["t0000", "t0001", "t0002"]


def renamed(trials: Path) -> None:
    (trials / "t0001").rename(trials / "t0007")


def became_a_comparison(trials: Path) -> None:
    (trials / "t0001").rename(trials / "static")


@pytest.mark.parametrize("change", [renamed, became_a_comparison])
def test_a_trial_under_another_name_is_refused(tmp_path: Path, change: Callable[[Path], None]) -> None:
    records = TrialRecords(CampaignFolder(tmp_path / "c"))
    searched(campaign(tmp_path), records, 2)
    change(records.folder.trials_path)
    for reads in (records.entries, records.remarks):
        with pytest.raises(ValueError, match="must hold the trial that it is named after, but holds t0001"):
            reads()
