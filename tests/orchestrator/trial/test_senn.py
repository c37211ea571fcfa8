"""SENN in trials: the score decides when and how much, and a trial is resumed bit by bit."""

from pathlib import Path
from typing import Any

import pytest

from coppice.orchestrator.config.models import TrialSpec
from coppice.orchestrator.folder import checkpoint as checkpoints
from coppice.orchestrator.folder.events import read_events
from coppice.orchestrator.trial.trial import Trial

SCORE = {"score": {"threshold": 0.03, "relative_to": "signal_eta", "least": 2.5e-3}}


def spec(how: str, when: Any) -> TrialSpec:
    return TrialSpec.model_validate({
        "task": {"dataset": "digits", "dataset_args": {"limit_train": 200}, "network": "mlp",
                 "network_args": {"hidden": [4, 4]}},
        "training": {"epochs": 4, "batch_size": 50, "optimizer": {"adamw": {"lr": 0.01}}},
        "adaptations": [
            {"grow": {"when": when, "where": "all", "how": {how: {"proposals": 12, "num_batches": 2}}, "amount": "advised"}}],
        "seed": 3,
    })  # fmt: skip


@pytest.mark.parametrize(("how", "when"), [("senn", SCORE), ("senn_depth", "learned")])
def test_it_grows_where_it_is_worth_it_and_is_resumed_bit_by_bit(tmp_path: Path, how: str, when: Any) -> None:
    Trial.open(spec(how, when), tmp_path / "whole").run()
    done = False
    while not done:
        trial = Trial.open(spec(how, when), tmp_path / "pieces")
        trial.step()
        trial.step()
        done = trial.done
        signals = trial.adaptations.all[0].signals
        trial.close()
    tensors = []
    for folder in ("whole", "pieces"):
        newest = checkpoints.available(tmp_path / folder / "checkpoints")[-1]
        tensors.append((newest / "model.safetensors").read_bytes())
    assert tensors[0] == tensors[1]
    changes = [e for e in read_events(tmp_path / "whole" / "events.jsonl") if e["type"] == "structural"]
    assert changes and all(e["function_change"] <= 1e-5 * e["function_scale"] for e in changes)
    for epoch in {e["epoch"] for e in changes}:
        now, added = signals[epoch - 1], sum(e["count"] for e in changes if e["epoch"] == epoch)
        assert now["advised"] > 0 and added > 0
        assert now["signal_gain"] > max(0.03 * now["signal_eta"], 2.5e-3)
