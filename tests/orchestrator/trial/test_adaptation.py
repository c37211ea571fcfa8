"""Every trigger in a trial of a few epochs: it acts as it says and resumes bit by bit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from coppice.methods.adaptation.signals import SIGNALS
from coppice.methods.graph.values import Element
from coppice.methods.growth.random import Random
from coppice.methods.method import Context, Measurement
from coppice.orchestrator.config.models import TrialSpec
from coppice.orchestrator.folder.events import read_events
from coppice.orchestrator.planning.load import check
from coppice.orchestrator.trial.adaptation import TrialAdaptation
from coppice.orchestrator.trial.trial import Trial
from coppice.scheduler.triggers import TRIGGERS
from tests.orchestrator.trial.test_trial import files, structural

EPOCHS = 6
ADVISING = f"{__name__}:Advising"


@dataclass(frozen=True)
class Advising(Random):
    """Wants two units more of the first element until it has 12."""

    advises = True

    def measure(self, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
        inputs, targets = next(iter(context.batches(1)))
        with torch.no_grad():
            loss = float(context.loss(context.network.module(inputs), targets))
        first = elements[0]
        advised = {first.name: max(0, min(2, 12 - first.size))}
        return Measurement(super().measure(context, elements, most).scores, advised=advised, signals={"loss": loss})


@pytest.fixture(autouse=True)
def effective_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in where no method brings the signal."""
    if "effective_rank" not in SIGNALS:
        monkeypatch.setitem(SIGNALS, "effective_rank", lambda context, method, permissible: {"rank_mean": 0.5, "rank_best": 0.8})


def tree(*adaptations: dict[str, Any], **task: Any) -> dict[str, Any]:
    return {
        "task": {"dataset": "digits", "dataset_args": {"limit_train": 200}, "network": "mlp",
                 "network_args": {"hidden": [8, 8], "activation": "tanh"}, **task},
        "training": {"epochs": EPOCHS, "batch_size": 50, "optimizer": {"sgd": {"lr": 0.05, "momentum": 0.9}}},
        "adaptations": list(adaptations),
        "seed": 1,
    }  # fmt: skip


def run(spec: dict[str, Any], folder: Path) -> Trial:
    trial = Trial.open(TrialSpec.model_validate(spec), folder)
    trial.run()
    return trial


def grow(when: Any, how: str = "random", amount: Any = 0.25, **more: Any) -> dict[str, Any]:
    return {"grow": {"when": when, "how": how, "amount": amount, **more}}


def prune(when: Any, how: str = "magnitude_weights", amount: Any = 0.25, **more: Any) -> dict[str, Any]:
    return {"prune": {"when": when, "where": "global", "how": how, "amount": amount, **more}}


CASES: dict[str, tuple[dict[str, Any], list[int]]] = {
    "never": (grow("never"), []),
    "initial": (prune("initial", how="snip"), [0]),
    "periodic": (grow({"periodic": {"every": 2}}), [2, 4]),
    "plateau": (grow({"plateau": {"patience": 1, "threshold": 0.5}}), [2, 4]),
    "cubic": (prune({"cubic": {"every": 2, "until": 1.0}}, amount=0.9), [2, 4, 5]),
    "cosine": (prune({"cosine": {"until": 1.0}}, amount=0.3), [1, 2, 3, 4, 5]),
    "rank": (grow({"rank": {"gamma": 0.5, "cooldown": 1}}), [1, 3, 5]),
    "score": (grow({"score": {"signal": "score_sum", "threshold": 1e-6, "from": 3}}, how="gradmax"), [3, 4, 5]),
    "splitting": (grow({"splitting": {"refractory": 1}}, how="splitting"), [1, 3, 5]),
    "overfitting": (grow({"overfitting": {"acts": 2, "alpha": 100.0, "from": 2}}), [3, 4]),
    "compute": (grow({"compute": {"share": 0.3}}), [2, 4, 5]),
    "target": (grow({"target": {"size": 1200, "tolerance": 0.1, "order": 1}}, amount=0.5), [1, 2]),
    "learned": (grow({"learned": {"least": 2}}, how=ADVISING, amount="advised"), [1, 2]),
}
"""Trigger -> an adaptation, and the epochs after which it acts in this trial."""


def test_every_trigger_has_a_case() -> None:
    assert set(CASES) == set(TRIGGERS)


@pytest.mark.parametrize("name", CASES)
def test_a_campaign_with_the_trigger_is_valid_and_acts(tmp_path: Path, name: str) -> None:
    adaptation, epochs = CASES[name]
    spec = tree(adaptation)
    text = yaml.safe_dump({"name": "x", **{k: v for k, v in spec.items() if k != "seed"}})
    assert check(text) == []
    trial = run(spec, tmp_path / "t")
    acted = trial.adaptations.all[0].acted
    assert acted == epochs
    assert {e["epoch"] for e in structural(tmp_path / "t")} <= set(acted)
    assert bool(structural(tmp_path / "t")) == bool(epochs)
    trigger = trial.adaptations.all[0].trigger
    assert len(trial.adaptations.all[0].signals) == (EPOCHS if trigger.wants else 0)


@pytest.mark.parametrize("name", [n for n in CASES if TRIGGERS[n].wants or n in ("compute", "target", "cubic", "initial")])
def test_stopped_after_any_epoch_it_goes_on_bit_by_bit(tmp_path: Path, name: str) -> None:
    """Signals, acts and changes are in the checkpoint."""
    spec = tree(CASES[name][0], prune({"periodic": {"every": 3}}, how="magnitude", amount=0.2, minimum=2))
    whole = run(spec, tmp_path / "whole")
    for stop in range(EPOCHS):
        pieces = Trial.open(TrialSpec.model_validate(spec), tmp_path / "pieces")
        assert pieces.epoch == stop
        pieces.step()
        pieces.close()
    assert files(tmp_path / "whole") == files(tmp_path / "pieces")
    for piece, one in zip(pieces.adaptations.all, whole.adaptations.all, strict=True):
        assert piece.signals == one.signals and piece.acted == one.acted
    assert pieces.adaptations.changed == whole.adaptations.changed and pieces.adaptations.all[0].acted


def test_signals_are_measured_only_where_the_trigger_may_act(tmp_path: Path) -> None:
    """Rank compares with the first epoch, so it is measured in every one."""
    trial = run(tree(grow({"score": {"threshold": 1e9, "from": 3, "until": 4}}, how="gradmax")), tmp_path / "score")
    assert [bool(s) for s in trial.adaptations.all[0].signals] == [False, False, True, True, False, False]
    trial = run(tree(grow({"score": {"cooldown": 2}}, how="gradmax")), tmp_path / "rests")
    assert [bool(s) for s in trial.adaptations.all[0].signals] == [True, False, False, True, False, False]
    trial = run(tree(grow({"rank": {"gamma": 0.1, "from": 3}})), tmp_path / "rank")
    assert all(trial.adaptations.all[0].signals) and trial.adaptations.all[0].acted[0] == 3


def test_the_cubic_schedule_ends_at_its_sparsity(tmp_path: Path) -> None:
    trial = Trial.open(TrialSpec.model_validate(tree(prune({"cubic": {"until": 1.0}}, amount=0.9))), tmp_path / "t")
    for epoch in range(1, EPOCHS + 1):
        trial.step()
        masks = trial.network.masks.values()
        masked, total = sum(int((~m).sum()) for m in masks), sum(m.numel() for m in masks)
        assert masked / total == pytest.approx(0.9 * (1 - (1 - min(1, epoch / 5)) ** 3), abs=2 / total)
    trial.close()


def test_the_target_is_reached_and_held_from_both_sides(tmp_path: Path) -> None:
    size = {"size": 1000, "tolerance": 0.05, "order": 1}
    both = [grow({"target": size}, amount=1.0), prune({"target": size}, how="magnitude", amount=0.9, where="all")]
    for hidden in ([4, 4], [40, 40]):
        trial = run(tree(*both, network_args={"hidden": hidden}), tmp_path / str(hidden[0]))
        assert abs(trial.network.num_parameters() - 1000) < 120, trial.network.num_parameters()
        assert structural(tmp_path / str(hidden[0]))


WHERE = [
    "all", "round_robin", {"best_gain": {"per": "flop"}}, "largest_score", {"global": {"normalise": "mean"}}, "random_element",
    {"budget": {"of": "parameters"}}, {"budget": {"of": "latency", "most": 2.0}},
]  # fmt: skip


@pytest.mark.parametrize("where", WHERE, ids=str)
@pytest.mark.parametrize("amount", [0.5, 4, {"seed": 0.5, "multiple": 4}, {"above": 1e-9}], ids=str)
def test_every_selection_grows_and_prunes_by_every_amount(tmp_path: Path, where: Any, amount: Any) -> None:
    once, later = {"periodic": {"every": 10, "from": 1}}, {"periodic": {"every": 10, "from": 2}}
    least = {"above": 3.0} if isinstance(amount, dict) and "above" in amount else amount
    spec = tree(
        grow(once, how="gradmax", amount=amount, where=where, limit={"width": 3}),
        prune(later, how="magnitude", amount=least, minimum=4),
    )
    spec["training"]["epochs"] = 3
    spec["adaptations"][1]["prune"]["where"] = where
    assert check(yaml.safe_dump({"name": "x", **{k: v for k, v in spec.items() if k != "seed"}})) == []
    run(spec, tmp_path / "t")
    events = structural(tmp_path / "t")
    assert {e["kind"] for e in events} == {"grow", "prune"}
    multiple = amount.get("multiple", 1) if isinstance(amount, dict) else 1
    assert all(e["size_after"] % multiple == 0 and 4 <= e["size_after"] <= 24 for e in events)


def test_a_metric_that_is_not_reported_says_what_is(tmp_path: Path) -> None:
    spec = tree(grow({"plateau": {"metric": "val_accurcy", "mode": "max", "patience": 1}}))
    trial = Trial.open(TrialSpec.model_validate(spec), tmp_path / "t")
    with pytest.raises(KeyError, match=r"val_accurcy.*compute.*flops.*parameters.*train_loss.*val_accuracy"):
        trial.run()


def test_a_method_without_scores_under_a_trigger_of_scores_says_so(tmp_path: Path) -> None:
    trial = Trial.open(TrialSpec.model_validate(tree(grow({"score": {"threshold": 0.1}}))), tmp_path / "t")
    with pytest.raises(KeyError, match=r"score_best.*advised.*offered"):
        trial.step()


def test_regression_is_compared_by_r2(tmp_path: Path) -> None:
    spec = tree(grow({"overfitting": {"acts": 3, "alpha": 100.0}}), dataset="diabetes", network="mlp")
    trial = run(spec, tmp_path / "t")
    assert set(trial.adaptations.all[0].signals[0]) == {"train_r2"} and trial.adaptations.all[0].acted


def test_an_amount_that_a_trigger_cannot_work_with_is_refused_in_python_too() -> None:
    spec = TrialSpec.model_validate(tree(prune("cubic", amount=3)))
    with pytest.raises(ValueError, match="cubic needs an amount that is a fraction"):
        TrialAdaptation.build(0, spec.adaptations[0])
    with pytest.raises(ValueError, match="cubic is for prune only"):
        TrialAdaptation.build(0, TrialSpec.model_validate(tree(grow("cubic"))).adaptations[0])


def test_a_schedule_that_asks_for_nothing_yet_is_a_reason(tmp_path: Path) -> None:
    run(tree(grow({"cosine": {"until": 1.0}}, amount=1)), tmp_path / "t")
    skipped = {e["epoch"]: e["reason"] for e in read_events(tmp_path / "t" / "events.jsonl") if e["type"] == "skipped"}
    assert "asks for nothing yet" in skipped[4] and 1 not in skipped


class TestMeasuredOnce:
    """What the trigger was told is what the act is planned from."""

    def counted(self, folder: Path, monkeypatch: pytest.MonkeyPatch, *adaptations: dict[str, Any]) -> Trial:
        self.calls: list[int] = []
        measure = Random.measure

        def counting(method: Random, context: Context, elements: Sequence[Element], most: Mapping[str, int]) -> Measurement:
            self.calls.append(len(context.network.lineage))
            return measure(method, context, elements, most)

        monkeypatch.setattr(Random, "measure", counting)
        return run(tree(*adaptations), folder)

    def test_a_measurement_is_not_taken_twice(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counted(tmp_path / "t", monkeypatch, grow("learned", how=ADVISING, amount="advised"))
        assert len(self.calls) == EPOCHS - 1 and len(structural(tmp_path / "t")) == 2

    def test_it_is_taken_again_when_another_adaptation_changed_the_network(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        once, learned = {"periodic": {"every": 10, "from": 1}}, {"learned": {"until": 2}}
        less = prune(once, how="magnitude", amount=1, where="all", elements=["hidden.2.*"])
        self.counted(tmp_path / "t", monkeypatch, less, grow(learned, how=ADVISING, amount="advised", elements=["hidden.0.*"]))
        assert self.calls == [0, 1, 2]
