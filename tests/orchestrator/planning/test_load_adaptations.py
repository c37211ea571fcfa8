"""Triggers, selections and amounts of campaign files: what can be written, and where what cannot is reported."""

import pytest

from coppice.orchestrator.planning.load import check

ADAPTATIONS = """\
name: x
task: {dataset: digits, network: mlp}
training: {epochs: 9}
adaptations:
  - grow: {when: never, how: random, amount: 0.5}
  - prune: {when: never, how: magnitude, amount: 0.5}
"""
GROW, PRUNE = 5, 6
PRUNED = "when: never, how: magnitude, amount: 0.5"


@pytest.mark.parametrize("when", [
    "{cubic: {every: 2, from: 0.1, until: {choice: [0.5, 0.75]}, power: {uniform: [1, 5]}}}", "{cosine: {every: {int: [1, 3]}}}",
    "{rank: {gamma: {choice: [0.9, 0.97, 0.99]}, reference: largest}}", "{score: {threshold: {loguniform: [1e-4, 1e-1]}}}",
    "{score: {signal: score_sum, threshold: 3e-2, relative_to: signal_eta, least: 2.5e-3, cooldown: 3}}", "splitting",
    "{overfitting: {acts: 4, alpha: {choice: [2, 4, 6]}}}", "{compute: {share: 0.05, budget: 1e12}}",
    "{compute: {refractory: 2}}", "{target: {size: 3e4, metric: flops, order: 1}}",
    "{plateau: {patience: 2, metric: val_accuracy, mode: max}}",
])  # fmt: skip
def test_every_trigger_can_be_written(when: str) -> None:
    assert check(ADAPTATIONS.replace("prune: {when: never", f"prune: {{when: {when}")) == []


@pytest.mark.parametrize("amount", [
    "8", "0.1", "{seed: 0.25, multiple: 8}", "{above: 1e-3}", "{now: 4, multiple: {choice: [1, 8]}}",
    "{seed: {uniform: [0.1, 1]}}",
    "{above: {loguniform: [1e-4, 1e-2]}, multiple: 4}", "{choice: [0.5, 8, {seed: 0.25}, {above: {uniform: [-1, 1]}}]}",
    "{now: {int: [1, 8]}}",
])  # fmt: skip
def test_amounts_hold_distributions(amount: str) -> None:
    assert check(ADAPTATIONS.replace("amount: 0.5", f"amount: {amount}")) == []


@pytest.mark.parametrize("amount", ["{uniform: [0, 0.9]}", "{now: {uniform: [0, 0.9]}, multiple: 8}", "{choice: [0.5, 0.9]}"])
def test_ends_of_ranges_of_fractions_are_fractions(amount: str) -> None:
    """A range from 0 is one of fractions, not of counts."""
    assert check(ADAPTATIONS.replace(PRUNED, f"when: cubic, how: magnitude, amount: {amount}")) == []


@pytest.mark.parametrize(("line", "change", "path", "said"), [
    (GROW, ("amount: 0.5", "amount: advised"), "amount", "random does not advise how many; give a number"),
    (GROW, ("amount: 0.5", "amount: {seeds: 0.5}"), "amount", "one of now, seed, above or advised"),
    (GROW, ("amount: 0.5", "amount: {seed: 0.5, multiple: 1.5}"), "amount", "whole number of at least 1"),
    (GROW, ("amount: 0.5", "amount: {seed: {uniform: [-1, 1]}}"), "amount", "at least 0"),
    (GROW, ("when: never", "when: cubic"), "when", "cubic is for prune only"),
    (GROW, ("when: never", "when: learned"), "when", "methods that advise how many units to change, but random does not"),
    (GROW, ("how: random", "where: learned, how: random"), "where", "learned is for methods that advise"),
    (GROW, ("when: never", "when: {rank: {gamma: 3}}"), "when", "gamma <= 2.0"),
    (GROW, ("when: never", "when: {rank: {gamma: {uniform: [0.9, 3]}}}"), "when", "gamma <= 2.0"),
    (GROW, ("when: never", "when: {score: {signal: 1}}"), "when", "signal must be a name"),
    (GROW, ("when: never", "when: {target: {size: big}}"), "when", "size must be a number"),
    (GROW, ("when: never", "when: {target: {sise: 3}}"), "when", "sise"),
    (GROW, ("when: never", "when: {periodic: {from: 0.8, until: 0.2}}"), "when", "from <= until must hold"),
    (GROW, ("when: never", "when: {compute: {refractory: -1}}"), "when", "0 <= refractory"),
    (PRUNE, (PRUNED, "when: cubic, how: magnitude, amount: 8"), "amount", "the final sparsity"),
    (PRUNE, (PRUNED, "when: target, how: magnitude, amount: 2"), "amount", "one act changes"),
    (PRUNE, (PRUNED, "when: cosine, how: magnitude, amount: {above: 1}"), "amount", "not above"),
    (PRUNE, ("how: magnitude", "where: {budget: {of: latency}}, how: magnitude_weights"), "where", "latency is measured for"),
    (PRUNE, ("how: magnitude", "where: {budget: {of: money}}, how: magnitude"), "where", "latency"),
])  # fmt: skip
def test_what_does_not_go_together_has_its_line(line: int, change: tuple[str, str], path: str, said: str) -> None:
    lines = ADAPTATIONS.split("\n")
    assert change[0] in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(*change)
    problems = check("\n".join(lines))
    assert [p.line for p in problems] == [line] * len(problems) and problems
    assert any(said in p.message and f".{path}" in p.path for p in problems), problems
