"""Campaign files: everything that is wrong is said at once, with its line, before anything starts."""

from pathlib import Path

import pytest
import yaml

from coppice.orchestrator.config.models import Campaign, Named, TrialSpec
from coppice.orchestrator.planning.load import check, check_campaign, load_campaign
from coppice.orchestrator.planning.problems import CampaignError
from coppice.orchestrator.planning.source import parse

GOOD = """\
name: good
task: {dataset: digits, network: mlp}
training: {epochs: 2, optimizer: {sgd: {lr: 1e-2}}}
adaptations:
  - grow: {when: {choice: [never, {periodic: {every: {int: [1, 4]}}}]}, how: random, amount: 0.5}
  - prune: {when: never, where: global, how: {choice: [magnitude, {slimming: {strength: 1e-4}}]}, amount: {uniform: [0.1, 0.3]}}
search: {sampler: tpe, trials: 3, and: {parameters: min}}
"""


def test_a_good_file_has_no_problems(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(GOOD)
    spec = load_campaign(tmp_path / "c.yaml")
    assert spec.training["optimizer"]["sgd"]["lr"] == 0.01
    assert spec.search.also == {"parameters": "min"}


@pytest.mark.parametrize("path", sorted(Path("campaigns").glob("*.yaml")), ids=lambda p: p.name)
def test_our_own_campaigns_are_fine(path: Path) -> None:
    assert check(path.read_text()) == []


BAD = """\
name: bad name!
task: {dataset: digitz, network: no.such:thing, data_dir: /nope}
training:
  epochs: 0
  optimizer: {sgd: {lr: {loguniform: [0, 1]}, momentun: 0.9}}
  lr_shedule: cosine
adaptations:
  - grow:
      when: {choice: [{periodic: {every: 0}}, plato]}
      where: everywhere
      how: {choice: [random, {gradmax: {scale: {uniform: [0.5, 99]}}}]}
      amount: -1
      limt: 3
  - prun: {}
search: {sampler: tpee, trials: 3, metric: accuracy}
"""


def test_everything_wrong_is_reported_at_once_with_its_line() -> None:
    said = {(p.line, word) for p in check(BAD) for word in (
        "name", "digits", "data_dir", "importable", "epochs", "low > 0", "momentum", "lr_schedule", "1 <= every", "plateau",
        "round_robin", "scale", "amount", "limit", "grow:", "nsga2", "val_accuracy") if word in str(p)}
    assert said >= {
        (1, "name"), (2, "digits"), (2, "data_dir"), (2, "importable"), (4, "epochs"), (5, "low > 0"), (5, "momentum"),
        (6, "lr_schedule"), (9, "1 <= every"), (9, "plateau"), (10, "round_robin"), (11, "scale"), (12, "amount"), (13, "limit"),
        (14, "grow:"), (15, "nsga2"), (15, "val_accuracy"),
    }


def test_the_error_names_the_file_and_says_that_nothing_started(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(BAD)
    with pytest.raises(CampaignError, match=r"bad\.yaml has \d+ problems; nothing was started") as caught:
        load_campaign(tmp_path / "bad.yaml")
    assert len(caught.value.problems) >= 16
    with pytest.raises(CampaignError, match="must be readable"):
        load_campaign(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        (("name: good", "name: good\nname: twice"), 2, "twice"),
        (("epochs: 2", "epochs: [2"), 3, "not valid YAML"),
        (("epochs: 2, ", ""), 3, "missing"),
        (("network: mlp", "network: mlp, network_args: {hiden: [3]}"), 2, "hiden"),
        (("how: random, amount: 0.5}", "how: deepen, amount: 1, removal: absorb}"), 5, "is for `prune`"),
        (("how: {choice: [magnitude, {slimming: {strength: 1e-4}}]}", "how: condense, removal: shrink"), 6, "by merge as well"),
        (("how: {choice: [magnitude, {slimming: {strength: 1e-4}}]}", "how: magnitude_weights, removal: merge"), 6, "immediate"),
        (("how: {choice: [magnitude, {slimming: {strength: 1e-4}}]}", "how: remove_blocks, removal: shrink"), 6, "can shrink"),
        (("when: never", "when: {never: 1, periodic: 2}"), 6, "one name"),
    ],
)
def test_single_faults(change: tuple[str, str], line: int, said: str) -> None:
    problems = check(GOOD.replace(*change))
    assert any(p.line == line and said in str(p) for p in problems), problems


@pytest.mark.parametrize("removal", ["immediate", "absorb", "merge", "{shrink: {steps: 5}}"])
def test_units_go_in_every_style(removal: str) -> None:
    assert check(GOOD.replace("where: global, how", f"where: global, removal: {removal}, how")) == []


def test_a_file_that_is_no_mapping() -> None:
    assert "must be a mapping" in check("- 1\n- 2\n")[0].message


def test_numbers_in_exponent_form_are_numbers_and_names_stay_names() -> None:
    assert parse("{a: 1e-4, b: 2.5E+3, c: e5, d: '1e-4x'}") == {"a": 1e-4, "b": 2500.0, "c": "e5", "d": "1e-4x"}


def test_models_go_to_yaml_and_back() -> None:
    spec = Campaign.model_validate(parse(GOOD))
    text = yaml.safe_dump(spec.model_dump(mode="json", by_alias=True))
    assert Campaign.model_validate(parse(text)) == spec
    trial = TrialSpec.model_validate(
        {"task": {"dataset": "digits", "network": "mlp"}, "training": {"epochs": 1},
         "adaptations": [{"grow": {"when": {"periodic": {"every": 2}}, "how": "random", "amount": 0.5}}]})
    assert TrialSpec.model_validate(trial.model_dump(mode="json")) == trial


def test_named_has_a_short_form() -> None:
    assert Named.model_validate("cosine") == Named(name="cosine")
    assert Named.model_validate({"cosine": {"warmup": 0.1}}).arguments == {"warmup": 0.1}
    assert Named(name="cosine").model_dump() == "cosine"


def test_a_campaign_that_has_begun_may_have_been_renamed_to_whatever() -> None:
    spec = Campaign.model_validate(parse(GOOD)).model_copy(update={"name": "my folder, later"})
    check_campaign(spec, begun=True)
    with pytest.raises(CampaignError, match="name: must begin with a letter or digit"):
        check_campaign(spec)
