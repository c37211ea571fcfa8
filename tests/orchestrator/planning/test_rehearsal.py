"""What only shows when the parts of a campaign are built and used is found before anything starts, with its line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import coppice
from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.planning.load import check
from coppice.orchestrator.planning.problems import CampaignError

FILE = """\
name: r
task:
  dataset: digits
  network: mlp
  network_args: {hidden: [16]}
  loss: cross_entropy
training:
  epochs: 4
  batch_size: 64
  optimizer: {sgd: {lr: 0.1}}
  lr_schedule: constant
adaptations:
  - grow:
      when: periodic
      how: random
      amount: 0.5
search:
  sampler: random
  trials: 12
  scheduler: none
  metric: val_accuracy
compare:
  big: {hidden: [64]}
"""
SEARCHED = {"optimizer": "{sgd: {lr: {uniform: [0.1, 0.2]}}}"}
UNSOUND = "tests.support.unsound"
LINES = {line.split(":")[0].strip(): number for number, line in enumerate(FILE.splitlines(), 1)}


def changed(**lines: str) -> str:
    """The file with other values for these keys."""
    text = FILE
    for key, value in lines.items():
        (old,) = [line for line in FILE.splitlines() if line.strip().startswith(f"{key}:")]
        text = text.replace(old, f"{old.split(':')[0]}: {value}")
    return text


def test_a_sound_campaign_has_no_problems() -> None:
    assert check(FILE) == []


def network(name: str, arguments: str = "{}", **others: str) -> dict[str, str]:
    return {"network": f"{UNSOUND}:{name}", "network_args": arguments, "big": "{}", **others}


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
@pytest.mark.filterwarnings("ignore:`gamma` has been deprecated:FutureWarning")
@pytest.mark.parametrize(("lines", "at", "said"), [
    ({"optimizer": "{sgd: {lr: fast}}"}, "optimizer", "must be a number, but is 'fast'"),
    ({"optimizer": "{sgd: {lr: -0.1}}"}, "optimizer", "must be above 0 and at most 1e+06, but is -0.1"),
    ({"optimizer": "{adam: {betas: 0.9}}"}, "optimizer", "two numbers"),
    ({"optimizer": "{sgd: {lr: .inf}}"}, "optimizer", "must be finite"),
    ({"lr_schedule": "{cosine: {final: -1}}"}, "lr_schedule", "at least 0"),
    ({"lr_schedule": "{step: {at: now}}"}, "lr_schedule", "list of fractions"),
    ({"lr_schedule": "{constant: {x: 1}}"}, "lr_schedule", "takes no arguments"),
    ({"batch_size": "5000"}, "batch_size", "at most the number of training samples"),
    ({"scheduler": "{asha: {max_epochs: 4, grace_compute: 1}}"}, "scheduler", "not both"),
    ({"scheduler": "{asha: {rungs: 3}}"}, "scheduler", "grace_epochs"),
    ({"scheduler": "{asha: {reduction_factor: 1}}"}, "scheduler", "reduction_factor > 1"),
    ({"scheduler": "hyperband"}, "scheduler", "['asha', 'none']"),
    ({"sampler": "{tpe: {gamma: 0.25}}", **SEARCHED}, "sampler", "gamma is a function"),
    ({"sampler": "grid", **SEARCHED}, "sampler", "finitely many"),
    ({"metric": "val_r2"}, "metric", "['compute', 'flops', 'parameters', 'seconds', 'train_loss', 'val_accuracy', 'val_loss']"),
    ({"big": "{hiden: [64]}"}, "big", "'hiden'"),
    ({"big": "{hidden: 64}"}, "big", "must be a list"),
    ({"when": "{plateau: {metric: val_f1, patience: 1}}"}, "when", "plateau watches 'val_f1', but the trial reports only"),
    ({"loss": "mse"}, "loss", "is for regression"),
    ({"loss": "{cross_entropy: {label_smoothing: 2}}"}, "loss", "label_smoothing < 1"),
    ({"loss": "{cross_entropy: {smoothing: 0.1}}"}, "loss", "smoothing"),
    ({"loss": f"{UNSOUND}:many_losses"}, "loss", "one number for a batch, but is of shape (32,)"),
    ({"loss": f"{UNSOUND}:detached"}, "training", "does not require grad"),
    ({"dataset": f"{UNSOUND}:no_dataset"}, "dataset", "must return a Dataset"),
    ({"dataset": f"{UNSOUND}:points"}, "loss", "is for classification"),
    (network("narrow"), "network", "shapes cannot be multiplied"),
    (network("too_few_outputs"), "loss", "out of bounds"),
    (network("fails_when_wide", "{width: {int: [2, 16]}}"), "network", "shapes cannot be multiplied"),
    (network("fails_when_wide", big="{width: 16}"), "big", "shapes cannot be multiplied"),
    (network("fails_when_wide", "{width: 0}"), "network", "all parameters must have entries, but 1.weight [0, 64]"),
    (network("broken"), "network", "IndexError: list index out of range"),
], ids=lambda value: " ".join(f"{k} {v}" for k, v in value.items())[:70] if isinstance(value, dict) else "")  # fmt: skip
def test_what_is_wrong_is_found_with_its_line(lines: dict[str, str], at: str, said: str) -> None:
    problems = check(changed(**lines))
    assert [p.line for p in problems] == [LINES[at]] and said in problems[0].message, problems


def test_of_an_error_in_own_code_the_place_is_told() -> None:
    (problem,) = check(changed(**network("broken")))
    assert "unsound.py, line " in problem.message and "in broken" in problem.message


def test_a_body_of_ones_own_reports_what_it_wants_and_is_left_to_itself() -> None:
    anything = {"network": "tests.support.bodies:anything", "network_args": "{x: 0.1}", "big": "{x: 3}", "metric": "val_f1"}
    assert check(changed(**anything) + "body: tests.support.bodies:Quadratic\n") == []
    (problem,) = check(changed(**anything) + f"body: {UNSOUND}:NoBody\n")
    assert problem.path == "body" and "has no step" in problem.message


def unsound(**search: Any) -> Campaign:
    return Campaign.model_validate({
        "name": "r", "task": {"dataset": "digits", "network": "mlp"}, "training": {"epochs": 3},
        "search": {"trials": 1, **search}})  # fmt: skip


@pytest.mark.parametrize("start", [coppice.run, lambda spec: coppice.run(spec, resume=True)])
def test_from_python_too(start: Callable[[Campaign], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CampaignError, match=r"campaign 'r' has 1 problem; nothing was started:\n  search.metric: must be one of"):
        start(unsound(metric="val_r2"))
    assert list(tmp_path.iterdir()) == []


def test_a_campaign_that_has_begun_goes_on_where_some_of_its_trials_can() -> None:
    widths = changed(**network("fails_when_wide", "{width: {choice: [4, 16]}}"))
    assert check(widths) and check(widths, begun=True) == []
    assert check(changed(batch_size="5000"), begun=True) == []
    assert "IndexError" in str(check(changed(**network("broken")), begun=True))
