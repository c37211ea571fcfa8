"""What `plan` says may be expected: where methods can act, when trials are judged, how large a grid is."""

from typing import Any

import pytest

from coppice.orchestrator.campaign.decisions import trial_scheduler
from coppice.orchestrator.config.models import Campaign
from coppice.orchestrator.planning.outlook import first_event, grid_points, judged, outlook, reaches
from coppice.orchestrator.planning.preview import previews
from coppice.scheduler.triggers import build_trigger


def campaign(how: Any = "random", when: Any = "periodic", network: str = "mlp", search: Any = None, **more: Any) -> Campaign:
    return Campaign.model_validate({
        "name": "o", "task": {"dataset": "digits", "network": network}, "training": {"epochs": 12},
        "adaptations": [{"grow": {"when": when, "how": how, "amount": 0.5, **more}}], "search": search or {}})  # fmt: skip


def test_of_each_method_is_said_what_it_can_act_on() -> None:
    found = {r.method: r for r in reaches(campaign({"choice": ["net2wider", "senn_depth", "cascade"]}))}
    assert found["net2wider"].elements > 0 and "can act on" in str(found["net2wider"])
    none = [r for r in found.values() if not r.elements]
    assert none and all(len(str(r).partition("of mlp: ")[2]) > 10 for r in none)
    (nowhere,) = reaches(campaign("net2wider", elements=["nothing.*"]))
    assert str(nowhere) == "adaptations.0: grow by net2wider can act on no elements of mlp: no element is named like nothing.*"
    (full,) = reaches(campaign("net2wider", limit={"parameters": 99}))
    assert str(full).endswith("of mlp: the network is at or above its limit of 99 parameters")


@pytest.mark.parametrize(("when", "arguments", "first"), [
    ("periodic", {"every": 3}, 3),
    ("periodic", {"every": 3, "from": 4}, 4),
    ("plateau", {"patience": 2}, 3),
    ("plateau", {"patience": 2, "from": 0.5}, 6),
    ("initial", {}, 0),
    ("never", {}, None),
    ("rank", {}, 1),
    ("compute", {"share": 0.25}, 3),
])  # fmt: skip
def test_when_a_trigger_may_act_first(when: str, arguments: dict[str, Any], first: int | None) -> None:
    assert first_event(build_trigger(when, arguments), 12) == first


@pytest.mark.parametrize(("scheduler", "when", "said"), [
    ("none", "periodic", None),
    ("asha", "never", "after epoch 1."),
    ("asha", {"periodic": {"every": 3}}, "epoch 3: they are judged before they have grown"),
    ({"asha": {"grace": 4}}, {"periodic": {"every": 3}}, "by then every network may have changed (after epoch 3)"),
    ({"asha": {"max_epochs": 50, "grace": 12}}, "periodic", "after epoch 12, but no trial has more than 12: none ends early."),
    ({"asha": {"max_compute": 1e9, "grace": 1.0}}, {"periodic": {"every": 3}}, "1 FLOPs, which is epoch 1 or later, but"),
    ({"asha": {"max_compute": 1e18, "grace": 1e15}}, {"periodic": {"every": 3}}, "by then every network may have changed"),
])  # fmt: skip
def test_where_the_first_rung_stands_against_the_first_change(scheduler: Any, when: Any, said: str | None) -> None:
    spec = campaign(when=when, search={"scheduler": scheduler, "metric": "val_accuracy"})
    found = judged(spec, trial_scheduler(spec).first_rung, previews(spec))
    assert found is None if said is None else found is not None and said in found


@pytest.mark.parametrize(("trials", "said"), [
    (4, "The grid has 6 points, of which 4 are tried"),
    (6, "The grid has 6 points; all are tried."),
    (9, "The grid has 6 points, and the search ends with the last of them."),
])  # fmt: skip
def test_how_large_a_grid_is(trials: int, said: str) -> None:
    how = {"choice": ["random", {"net2wider": {"noise": {"choice": [0.0, 0.01]}}}]}
    spec = campaign(how, {"periodic": {"every": {"int": [1, 2]}}}, search={"sampler": "grid", "trials": trials})
    assert grid_points(spec) == 6 and grid_points(campaign()) is None
    assert said in outlook(spec, previews(spec)).notes[0]
