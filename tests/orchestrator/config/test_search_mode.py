"""Which end of a metric is good follows from its name; where it does not, the file must say."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from coppice.orchestrator.config.models import Campaign, SearchSpec
from coppice.orchestrator.folder import lock
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.planning.load import check
from coppice.scheduler.metrics import known_mode, mode_of
from coppice.scheduler.triggers import build_trigger
from coppice.scheduler.triggers.base import Progress
from tests.support.folders import create

FILE = "name: x\ntask: {dataset: digits, network: mlp}\ntraining: {epochs: 3}\n"


@pytest.mark.parametrize(("metric", "mode"), [
    ("val_loss", "min"), ("train_loss", "min"), ("loss", "min"), ("val_rmse", "min"), ("val_errors", "min"),
    ("val_perplexity", "min"), ("parameters", "min"), ("flops", "min"), ("compute", "min"), ("seconds", "min"),
    ("val_accuracy", "max"), ("val_top5_accuracy", "max"), ("val_r2", "max"), ("val_f1", "max"), ("val_wonder", None), ("", None),
    ("losses_avoided", None),
])  # fmt: skip
def test_the_name_says_which_end_is_good(metric: str, mode: str | None) -> None:
    assert known_mode(metric) == mode
    if mode:
        assert SearchSpec(metric=metric).mode == mode == mode_of(metric)
        assert SearchSpec.model_validate(SearchSpec(metric=metric).model_dump(by_alias=True)) == SearchSpec(metric=metric)


def test_a_name_that_says_nothing_needs_a_mode() -> None:
    with pytest.raises(ValidationError, match="mode must be given, as it does not follow from the name 'val_wonder'"):
        SearchSpec(metric="val_wonder")
    spec = SearchSpec(metric="val_wonder", mode="min")
    assert SearchSpec.model_validate(json.loads(spec.model_dump_json(by_alias=True))).mode == "min"
    with pytest.raises(ValueError, match="mode must be given"):
        build_trigger("plateau", {"metric": "val_wonder"})


@pytest.mark.parametrize(("search", "line", "said"), [
    ("{metric: val_loss, mode: max}", 4, "search.mode: must be min for val_loss"),
    ("{metric: val_accuracy, mode: min}", 4, "search.mode: must be max for val_accuracy"),
    ("{metric: val_loss, and: {parameters: max}}", 4, "search.and.parameters: must be min"),
    ("{metric: val_loss, and: {val_loss: min}}", 4, "search.and.val_loss: must be another metric"),
    ("{metric: val_los}", 4, "did you mean 'val_loss'"),
    ("{metric: val_wonder}\nbody: tests.support.bodies:Quadratic", 4, "search.metric: mode must be given"),
])  # fmt: skip
def test_contradictions_have_their_line(search: str, line: int, said: str) -> None:
    problems = check(f"{FILE}search: {search}\n")
    assert any(p.line == line and said in str(p) for p in problems), problems


def test_a_body_of_ones_own_may_report_what_it_likes() -> None:
    own = f"{FILE}body: tests.support.bodies:Quadratic\nsearch: {{metric: negative_loss, mode: max}}\n"
    assert check(own) == []
    assert "must be one of" in str(check(own.replace("body:", "#")))


def test_records_of_contradictory_pairs_stay_as_they_are(tmp_path: Path) -> None:
    folder = CampaignFolder(tmp_path / "x")
    create(folder, Campaign.model_validate(
        {"name": "x", "task": {}, "training": {}, "search": {"metric": "val_loss", "mode": "max"}}))
    spec = lock.load_spec(folder)
    assert spec.search.mode == "max"
    lock.require_same(lock.load_spec(folder), spec)
    other = spec.model_copy(update={"search": SearchSpec(metric="val_loss")})
    with pytest.raises(ValueError, match=r"search\.mode changed"):
        lock.require_same(lock.load_spec(folder), other)


def test_a_plateau_of_an_accuracy_is_where_it_no_longer_rises() -> None:
    trigger = build_trigger("plateau", {"metric": "val_accuracy", "patience": 2})
    rising, falling = ([{"val_accuracy": a} for a in values] for values in ((0.1, 0.2, 0.3, 0.4), (0.4, 0.3, 0.2, 0.1)))
    assert not trigger.fires(Progress(4, 9, tuple(rising)))
    assert trigger.fires(Progress(4, 9, tuple(falling)))
