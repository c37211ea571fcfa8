"""The search space: define-by-run, conditional sub-trees, all samplers."""

from typing import Any

import optuna
import pytest

from coppice.orchestrator.config.models import SearchSpec
from coppice.orchestrator.config.samplers import make_sampler
from coppice.orchestrator.config.space import Space, labels, problem_of

TREE: dict[str, Any] = {
    "lr": {"loguniform": [1e-3, 1e-1]},
    "how": {"choice": ["random", {"gradmax": {"scale": {"uniform": [0.1, 0.9]}}}, {"firefly": {"candidates": {"int": [5, 9]}}}]},
    "list": [1, {"choice": [{"a": 1, "b": {"int": [1, 3]}}, {"a": 2, "b": 4}]}],
    "plain": {"epochs": 3},
}


def sampled(count: int, sampler: str = "random", seed: int = 0) -> list[tuple[Any, dict[str, Any]]]:
    search = SearchSpec.model_validate({"sampler": sampler})
    space = Space(TREE)
    study = optuna.create_study(sampler=make_sampler(search, seed))
    found = []
    for _ in range(count):
        trial = study.ask()
        found.append((space.sample(trial), dict(trial.params)))
        study.tell(trial, 1.0)
    return found


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_every_branch_is_reached_and_holds_only_its_own_parameters(sampler: str) -> None:
    seen = set()
    for tree, params in sampled(60, sampler):
        assert 1e-3 <= tree["lr"] <= 1e-1
        assert tree["plain"] == {"epochs": 3}
        how = tree["how"]
        seen.add(params["how"])
        if how == "random":
            assert "how/gradmax/gradmax/scale" not in params
        elif "gradmax" in how:
            assert 0.1 <= how["gradmax"]["scale"] <= 0.9
            assert set(params) >= {"how/gradmax/gradmax/scale"}
        else:
            assert how["firefly"]["candidates"] in range(5, 10)
        assert tree["list"][1]["a"] == (1 if params["list/1"] == "#0" else 2)
        assert ("list/1/#0/b" in params) == (params["list/1"] == "#0")
    assert seen == {"random", "gradmax", "firefly"}


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_the_seed_decides(sampler: str) -> None:
    assert sampled(12, sampler, 1) == sampled(12, sampler, 1)
    assert sampled(12, sampler, 1) != sampled(12, sampler, 2)


def test_steps_and_whole_numbers() -> None:
    space = Space({"a": {"int": [2, 10, 4]}, "b": {"uniform": [0.0, 1.0, 0.25]}, "c": {"logint": [1, 100]}})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        tree = space.sample(study.ask())
        assert tree["a"] in (2, 6, 10)
        assert tree["b"] in (0.0, 0.25, 0.5, 0.75, 1.0)
        assert isinstance(tree["c"], int) and 1 <= tree["c"] <= 100


def test_labels_are_names_where_they_are_unique() -> None:
    assert labels(["a", {"b": 1}, 3, None, True]) == ["a", "b", 3, "#3", True]
    assert labels([{"a": 1}, {"a": 2}, {"x": 1, "y": 2}]) == ["#0", "#1", "#2"]


def test_variants_reach_every_option_and_both_ends() -> None:
    trees = [tree for tree, _ in Space(TREE).variants()]
    assert {t["lr"] for t in trees} == {1e-3, 1e-1}
    hows = [t["how"] if isinstance(t["how"], str) else next(iter(t["how"])) for t in trees]
    assert set(hows) == {"random", "gradmax", "firefly"}
    assert {t["how"]["gradmax"]["scale"] for t in trees if isinstance(t["how"], dict) and "gradmax" in t["how"]} == {0.1, 0.9}
    assert {t["list"][1]["b"] for t in trees} == {1, 3, 4}


@pytest.mark.parametrize(
    ("kind", "content", "said"),
    [
        ("choice", [], "at least one option"),
        ("uniform", [2, 1], "low <= high"),
        ("loguniform", [0, 1], "low > 0"),
        ("int", [1.5, 2], "whole numbers"),
        ("uniform", [1], "low, high"),
        ("logint", [1, 2, 3], "low, high"),
        ("int", [1, 5, 0], "0 < step"),
        ("uniform", ["a", "b"], "finite numbers"),
        ("uniform", [0, float("inf")], "finite numbers"),
    ],
)
def test_impossible_distributions_are_explained(kind: str, content: Any, said: str) -> None:
    message = problem_of(kind, content)
    assert message is not None and said in message


def test_unknown_samplers_and_arguments_are_explained() -> None:
    with pytest.raises(ValueError, match="nsga2"):
        make_sampler(SearchSpec.model_validate({"sampler": "tpee"}), 0)
    with pytest.raises(ValueError, match="n_startup_trials"):
        make_sampler(SearchSpec.model_validate({"sampler": {"tpe": {"startup": 3}}}), 0)
