"""A campaign that goes on after its end: what is compared belongs to the network that is the best one now."""

from pathlib import Path
from typing import Any

import pytest

from coppice.orchestrator.campaign.comparisons import missing_comparisons
from coppice.orchestrator.campaign.sampler import Sampler
from coppice.orchestrator.campaign.tune_search import TuneSearch
from coppice.orchestrator.config.models import Campaign, TrialSpec
from coppice.orchestrator.folder.checkpoint import CheckpointError
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.trials import Sample, TrialRecords
from coppice.orchestrator.report.gather import gather
from coppice.orchestrator.report.page import render
from coppice.orchestrator.trial.building import build_dataset, build_network
from tests.support.folders import create

NO_SAMPLE = Sample({}, {}, {"distributions": {}, "attributes": {}})


def spec(root: Path, **changes: Any) -> Campaign:
    content = {"name": "c", "root": root, "task": {"dataset": "digits", "network": "mlp"}, "training": {"epochs": 3},
               "search": {"trials": 2}, "compare": {"static": True, "big": {"hidden": [64]}}}
    return Campaign.model_validate({**content, **changes})


def add(folder: CampaignFolder, name: str, trial: dict[str, Any], number: int | None, quality: float, epochs: int = 3) -> None:
    """A finished trial with a checkpoint (an empty folder: nothing here reads it)."""
    records = TrialRecords(folder)
    records.add(name, trial, number, NO_SAMPLE)
    for epoch in range(1, epochs + 1):
        head = {"type": "metrics", "trial": name, "time": 1.0, "epoch": epoch, "step": epoch}
        folder.trial(name).append_event({**head, "val_accuracy": quality - 0.1 / epoch, "parameters": 1000.0 * quality})
    records.mark(name, "finished", {"epoch": epochs})
    (folder.trial(name).checkpoints / f"{epochs:06d}").mkdir(parents=True)


def searched(folder: CampaignFolder, number: int, quality: float) -> None:
    trial = TrialSpec.model_validate({"task": {"dataset": "digits", "network": "mlp"}, "training": {"epochs": 3}, "seed": number})
    add(folder, f"t{number:04d}", trial.model_dump(mode="json"), number, quality)


def make_comparisons(folder: CampaignFolder, campaign: Campaign, quality: float) -> list[str]:
    """Do what is missing; the ids."""
    missing = missing_comparisons(campaign, folder)
    for name, trial in missing:
        add(folder, name, trial.model_dump(mode="json"), None, quality)
    return [name for name, _ in missing]


@pytest.fixture
def extended(tmp_path: Path) -> tuple[CampaignFolder, Campaign]:
    """One trial and its comparisons; then a second trial that is better."""
    folder, campaign = CampaignFolder(tmp_path / "c"), spec(tmp_path)
    create(folder, campaign)
    searched(folder, 0, 0.8)
    assert make_comparisons(folder, campaign, 0.5) == ["static", "big"]
    assert missing_comparisons(campaign, folder) == []
    searched(folder, 1, 0.9)
    return folder, campaign


def test_comparisons_of_an_earlier_best_are_made_anew_and_the_old_ones_kept(
    extended: tuple[CampaignFolder, Campaign],
) -> None:
    folder, campaign = extended
    records = TrialRecords(folder)
    entries = records.entries()
    sampler = Sampler(campaign)
    sampler.restore(entries)
    search = TuneSearch(campaign, records, entries, sampler, lambda: missing_comparisons(campaign, folder), {})
    assert not search.complete
    made = {e.id: e.spec for e in records.entries() if e.number is None}
    assert {name: of["compared_with"] for name, of in made.items()} == {
        "static": "t0000", "big": "t0000", "static-2": "t0001", "big-2": "t0001"}
    assert Path(made["static-2"]["architecture"]).parts[-3:] == ("t0001", "checkpoints", "000003")
    assert made["big-2"]["seed"] == 1


def test_the_report_says_what_each_comparison_belongs_to(extended: tuple[CampaignFolder, Campaign]) -> None:
    folder, campaign = extended
    page = render(gather(folder.path))
    assert "the static network of the same final size" not in page and "against the big one" not in page
    assert "static, final size of t0000, from scratch" in page and "big, never changed, with the settings of t0000" in page
    assert make_comparisons(folder, campaign, 0.6) == ["static-2", "big-2"]
    page = render(gather(folder.path))
    assert "+30.00 points against the static network of the same final size" in page
    assert page.count("static, same final size, from scratch") == 1
    assert page.count("static, final size of t0000, from scratch") == 1


def test_other_arguments_of_the_big_network_are_another_comparison(extended: tuple[CampaignFolder, Campaign]) -> None:
    folder, campaign = extended
    make_comparisons(folder, campaign, 0.6)
    other = campaign.model_copy(update={"compare": campaign.compare.model_copy(update={"big": {"hidden": [128]}})})
    assert [name for name, _ in missing_comparisons(other, folder)] == ["big-3"]


def test_comparisons_of_before_belong_to_the_trial_that_they_were_made_for(tmp_path: Path) -> None:
    """Earlier versions wrote no `compared_with`."""
    folder, campaign = CampaignFolder(tmp_path / "c"), spec(tmp_path)
    create(folder, campaign)
    searched(folder, 0, 0.8)
    for name, trial in missing_comparisons(campaign, folder):
        add(folder, name, {k: v for k, v in trial.model_dump(mode="json").items() if k != "compared_with"}, None, 0.5)
    assert missing_comparisons(campaign, folder) == []
    searched(folder, 1, 0.9)
    assert [name for name, _ in missing_comparisons(campaign, folder)] == ["static-2", "big-2"]


def test_a_static_network_of_an_earlier_epoch_says_so(tmp_path: Path) -> None:
    folder, campaign = CampaignFolder(tmp_path / "c"), spec(tmp_path)
    create(folder, campaign)
    searched(folder, 0, 0.8)
    (folder.trial("t0000").checkpoints / "000003").rename(folder.trial("t0000").checkpoints / "000002")
    make_comparisons(folder, campaign, 0.5)
    page = render(gather(folder.path))
    assert "static, size after epoch 2, from scratch" in page and "same final size" not in page


def test_a_comparison_in_a_moved_folder_starts_from_the_network_that_moved_with_it(
    extended: tuple[CampaignFolder, Campaign], tmp_path: Path
) -> None:
    folder, campaign = extended
    ((_, trial), *_) = missing_comparisons(campaign, folder)
    moved = folder.path.rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match=rf"{moved}/trials/static-2/../t0001/checkpoints/000003"):  # that one is empty
        build_network(trial, build_dataset(trial), moved / "trials" / "static-2")
