"""Nonsense in campaign files: each kind is refused with its line, the value that was given and what to write, and leaves nothing.

A case changes one line of a file that is fine. `FINE` has the neighbours of nonsense that make sense and are accepted.
"""

import sys
from pathlib import Path

import pytest
import torch

from coppice.orchestrator.cli.main import main
from coppice.orchestrator.planning.load import check, load_campaign
from coppice.orchestrator.planning.problems import CampaignError
from tests.support.stranger import REQUIRES_ROOT, as_stranger

LINES = {
    "name": "c", "root": "runs", "task": "{dataset: digits, network: mlp}", "epochs": "10", "batch_size": "64",
    "optimizer": "{sgd: {lr: 0.1}}", "training": "augment: true", "when": "periodic", "how": "random", "amount": "0.25",
    "adaptation": "minimum: 1", "prune": "amount: 0.5", "sampler": "random", "trials": "2", "metric": "val_accuracy",
    "search": "max_concurrent: 2", "compare": "{static: true}", "resources": "{cpus: 1}", "placement": "local", "seed": "0",
}  # fmt: skip
FILE = """\
name: {name}
root: {root}
task: {task}
training:
  epochs: {epochs}
  batch_size: {batch_size}
  optimizer: {optimizer}
  {training}
adaptations:
  - grow:
      when: {when}
      how: {how}
      amount: {amount}
      {adaptation}
  - prune: {{when: periodic, how: magnitude, {prune}}}
search:
  sampler: {sampler}
  trials: {trials}
  metric: {metric}
  {search}
compare: {compare}
resources: {resources}
placement: {placement}
seed: {seed}
"""
AT = {key: next(n for n, line in enumerate(FILE.split("\n"), 1) if f"{{{key}}}" in line) for key in LINES}


def written(**changes: str) -> str:
    return FILE.format(**{**LINES, **changes})


def case(key: str, value: str, *said: str) -> tuple[str, str, tuple[str, ...]]:
    return key, value, said


NUMBERS = [
    case("epochs", "yes", "whole number", "'yes'"), case("epochs", "true", "whole number", "True"),
    case("epochs", "'3'", "'3'", "write 3, without quotes"), case("epochs", "010", "begin with 0", "010"),
    case("epochs", "2.5", "2.5", "write 2 or 3"), case("epochs", "0", "at least 1", "0"),
    case("epochs", "-3", "at least 1", "-3"),
    case("epochs", "1:30", "whole number", "'1:30'"), case("epochs", "1_000", "'1_000'"), case("epochs", "ten", "'ten'"),
    case("epochs", "[3]", "whole number", "[3]"), case("epochs", "~", "whole number", "None"),
    case("epochs", "1e999", "finite", "1e999"), case("epochs", "9" * 5000, "5000 characters"), case("epochs", ".inf", "finite"),
    case("epochs", ".nan", "finite", ".nan"), case("epochs", "2024-01-01", "'2024-01-01'"),
    case("batch_size", "true", "whole number", "True"), case("batch_size", "0", "at least 1"),
    case("batch_size", "5000", "1150", "5000"),
    case("batch_size", "64.5", "write 64 or 65"), case("trials", "yes", "'yes'"), case("trials", "0", "at least 1"),
    case("trials", "-1", "-1"), case("trials", "1:30", "'1:30'"), case("trials", "{choice: [2, 4]}", "whole number"),
    case("search", "max_concurrent: 0", "at least 1"), case("search", "max_concurrent: many", "'many'"),
    case("seed", "1.5", "whole number", "1.5"), case("seed", "true", "True"), case("seed", "-1", "from 0", "-1"),
    case("seed", "1" * 30, "whole number", "1" * 30), case("search", "seed: -7", "from 0", "-7"),
    case("resources", "{hours: 1:30}", "must be a number", "'1:30'"), case("resources", "{hours: 24:00:00}", "'24:00:00'"),
    case("resources", "{hours: .inf}", "finite"), case("resources", "{hours: 0}", "above 0"),
    case("resources", "{hours: -1}", "-1"),
    case("resources", "{gpus: yes}", "'yes'"), case("resources", "{cpus: 0}", "at least 1"),
    case("resources", "{nodes: 0}", "at least 1"),
    case("resources", "{cpus: 100000}", "100000", "cores", "lower it"), case("resources", "{cpus_per_gpu: 0}", "at least 1"),
    case("resources", "{gpus: 1000}", "GPUs", "1000"),
    case("placement", "{local: {cpus: 0}}", "0 cores"), case("placement", "{local: {cpus: -1}}", "at least 0", "-1"),
    case("placement", "{local: {cpus: '2'}}", "without quotes"), case("placement", "{local: {cpus: 1.5}}", "write 1 or 2"),
    case("task", "{dataset: digits, network: mlp, network_args: {batch_norm: yes}}", "true or false", "'yes'"),
    case("compare", "{big: {hidden: '64'}}", "list of whole numbers"),
    case("task", "{dataset: digits, network: mlp, dataset_args: {limit_train: '9'}}", "without quotes"),
    case("placement", "{local: {dashboard: no}}", "'no'", "write false"), case("placement", "{local: {core: 2}}", "known are"),
    case("placement", "cloud", "local", "'cloud'"),
]  # fmt: skip
TRAINING = [
    case("optimizer", "{sgd: {lr: -0.1}}", "above 0", "-0.1"), case("optimizer", "{sgd: {lr: 0}}", "above 0"),
    case("optimizer", "{sgd: {lr: fast}}", "number", "'fast'"), case("optimizer", "{sgd: {lr: '0.1'}}", "without quotes"),
    case("optimizer", "{sgd: {lr: true}}", "number", "True"), case("optimizer", "{sgd: {lr: ~}}", "number", "None"),
    case("optimizer", "{sgd: {lr: .nan}}", "finite"), case("optimizer", "{sgd: {lr: -.inf}}", "finite"),
    case("optimizer", "{sgd: {lr: 1e-o3}}", "'1e-o3'"), case("optimizer", "{sgd: {lr: [0.1]}}", "[0.1]"),
    case("optimizer", "{sgd: {lr: {chioce: [0.1]}}}", "did you mean 'choice'"),
    case("optimizer", "{sgd: {lr: {choice: []}}}", "at least one option"),
    case("optimizer", "{sgd: {lr: {choice: 0.1}}}", "list", "0.1"),
    case("optimizer", "{sgd: {lr: {choice: [0.1, 0.1]}}}", "twice"),
    case("optimizer", "{sgd: {lr: {uniform: [0.2, 0.1]}}}", "low <= high", "0.2"),
    case("optimizer", "{sgd: {lr: {uniform: [0.1, 0.2, 5]}}}", "step", "5"),
    case("optimizer", "{sgd: {lr: {uniform: ['0.1', '0.2']}}}", "finite numbers"),
    case("optimizer", "{sgd: {lr: {uniform: [0.1, 0.2], step: 0.1}}}", "stand alone", "step"),
    case("optimizer", "{sgd: {lr: {loguniform: [0, 0.1]}}}", "low > 0"),
    case("optimizer", "{sgd: {lr: {uniform: 0.1}}}", "[low, high]"),
    case("optimizer", "{sgd: {lr: {uniform: [-0.1, 0.1]}}}", "above 0", "-0.1"),
    case("optimizer", "{sgd: {lr: 0.1, momentum: 9}}", "below 1", "9"), case("optimizer", "{sgd: {lr: 0.1, momentum: -9}}", "-9"),
    case("optimizer", "{sgd: {lr: 0.1, momentum: 1}}", "below 1"), case("optimizer", "{sgd: {lr: 0.1, weight_decay: -1}}", "-1"),
    case("optimizer", "{sgd: {lr: 0.1, nesterov: yes}}", "true or false", "'yes'"),
    case("optimizer", "{sgd: {lr: 0.1, nesterov: true}}", "momentum"),
    case("optimizer", "{adam: {lr: 0.1, betas: 0.9}}", "two numbers"),
    case("optimizer", "{adam: {betas: [0.9, 1.5]}}", "below 1", "1.5"), case("optimizer", "{adam: {eps: -1}}", "-1"),
    case("optimizer", "{sgd: {momentun: 0.9}}", "did you mean 'momentum'"), case("optimizer", "sdg", "sgd", "'sdg'"),
    case("optimizer", "{rmsprop: {alpha: 2}}", "below 1", "2"),
    case("optimizer", "{sgd: {lr: 0.1}, adam: {lr: 0.1}}", "one name"),
    case("optimizer", "3", "name", "3"),
    case("training", "lr_schedule: {cosine: {warmup: 5}}", "fraction", "5", "0.5"),
    case("training", "lr_schedule: {cosine: {warmup: -1}}", "fraction", "-1"),
    case("training", "lr_schedule: {cosine: {warmup: '0.1'}}", "without quotes"),
    case("training", "lr_schedule: {cosine: {final: 3}}", "at most 1", "3"),
    case("training", "lr_schedule: {step: {at: [3, 6]}}", "fractions", "[0.3, 0.6]"),
    case("training", "lr_schedule: {step: {at: [30, 60]}}", "fractions", "[30, 60]"),
    case("training", "lr_schedule: {step: {at: [0.8, 0.2]}}", "rise"), case("training", "lr_schedule: {step: {at: 0.5}}", "list"),
    case("training", "lr_schedule: {step: {factor: 0}}", "above 0"), case("training", "lr_schedule: {step: {factor: -2}}", "-2"),
    case("training", "lr_schedule: cosin", "cosine", "'cosin'"), case("training", "lr_schedule: {cosine: {warm: 0.1}}", "warmup"),
    case("training", "gradient_clip: .inf", "finite"), case("training", "gradient_clip: 0", "above 0"),
    case("training", "ema: 1", "below 1"), case("training", "ema: -0.5", "above 0"),
    case("training", "checkpoint_every: 0", "at least 1"),
    case("training", "device: gpu", "'cuda'", "'gpu'"), case("training", "augment: no", "'no'", "write false"),
    case("training", "compile: 1", "true or false", "1"), case("training", "precision: half", "bfloat16", "'half'"),
    case("training", "agument: true", "did you mean 'augment'"),
]  # fmt: skip
ADAPTATIONS = [
    case("when", "{periodic: {every: 0}}", "1 <= every", "0"), case("when", "{periodic: {every: 100}}", "never can", "100"),
    case("when", "{periodic: {every: 2.5}}", "2.5"), case("when", "{periodic: {every: '2'}}", "'2'"),
    case("when", "{periodic: {from: 20}}", "never can", "from epoch 20"),
    case("when", "{periodic: {from: 9, every: 5, until: 8}}", "from"),
    case("when", "{periodic: {from: 0.9, until: 0.1}}", "from <= until"), case("when", "{periodic: {until: 50}}", "50", "0.5"),
    case("when", "{periodic: {until: -1}}", "-1"), case("when", "{plateau: {patience: -1}}", "-1"),
    case("when", "{plateau: {patience: 20}}", "never can", "patience 20"),
    case("when", "{plateau: {metric: val_los}}", "did you mean 'val_loss'"), case("when", "{plateau: {mode: up}}", "'up'"),
    case("when", "{compute: {share: 5}}", "share"), case("when", "{compute: {from: 30}}", "never can"),
    case("when", "perodic", "periodic"),
    case("when", "{periodic: {evry: 2}}", "every"), case("when", "5", "name", "5"),
    case("when", "{overfitting: {acts: 0}}", "acts"),
    case("how", "randon", "did you mean 'random'"), case("how", "magnitude", "unknown grow"),
    case("how", "{random: {scale: x}}", "scale"),
    case("how", "[random]", "name"),
    case("amount", "-0.1", "at least 0", "-0.1"), case("amount", "0", "above 0"), case("amount", "0.0", "above 0"),
    case("amount", ".nan", "finite"), case("amount", "25%", "write 0.25"), case("amount", "'8'", "write 8"),
    case("amount", "1e9", "at most 10"), case("amount", "25.0", "write 0.25 for 25 %"), case("amount", "true", "amount", "True"),
    case("amount", "{seed: -1}", "-1"), case("amount", "{sed: 1}", "seed"), case("amount", "{seed: 1, now: 1}", "one of"),
    case("amount", "{seed: 0.5, multiple: 0}", "multiple", "0"), case("amount", "{choice: []}", "at least one option"),
    case("amount", "advised", "does not advise"), case("amount", "[1]", "[1]"),
    case("amount", "100000000000", "at most", "100000000000"),
    case("prune", "amount: 30.0", "write 0.3 for 30 %, 30 for units"), case("prune", "amount: 1.5", "150 %"),
    case("prune", "amount: 0.5, minimum: 0", "at least 1"), case("adaptation", "minimum: 4", "for `prune`", "delete"),
    case("adaptation", "removal: {shrink: {steps: 9}}", "for `prune`", "delete"),
    case("prune", "amount: 0.5, removal: {shrink: {steps: 0}}", "at least 1", "0"),
    case("prune", "amount: 0.5, removal: {shrink: {steps: soon}}", "whole number", "'soon'"),
    case("prune", "amount: 0.5, removal: sudden", "immediate", "'sudden'"),
    case("adaptation", "limit: {width: .inf}", "finite"), case("adaptation", "limit: {width: 0.5}", "at least 1"),
    case("adaptation", "limit: {parameters: -3}", "above 0"), case("adaptation", "limit: {flops: many}", "'many'"),
    case("adaptation", "limit: {widht: 2}", "did you mean 'width'"), case("adaptation", "limit: 3", "mapping", "3"),
    case("adaptation", "elements: layer", "list", "'layer'"),
    case("adaptation", "elements: [no_such_layer]", "'no_such_layer'"), case("adaptation", "wher: all", "did you mean"),
]  # fmt: skip
SEARCH = [
    case("metric", "val_r2", "val_accuracy", "'val_r2'"), case("metric", "accuracy", "did you mean 'val_accuracy'"),
    case("metric", "val_wonder", "mode must be given"), case("metric", "3", "text", "3"),
    case("metric", "val_loss\n  mode: max", "min"),
    case("search", "mode: min", "max for val_accuracy"), case("search", "mode: best", "'max'", "'best'"),
    case("search", "and: {val_accuracy: min}", "another metric"), case("search", "and: {parameters: max}", "min for parameters"),
    case("search", "and: {parameters: small}", "'small'"), case("search", "and: [parameters]", "mapping"),
    case("search", "scheduler: hyperbend", "'hyperbend'"), case("search", "scheduler: {asha: {max_epochs: 2, grace: 10}}", "10"),
    case("search", "scheduler: {asha: {reduction_factor: 1}}", "reduction_factor > 1"),
    case("search", "scheduler: {asha: {reduction_factor: x}}", "'x'"),
    case("search", "scheduler: {asha: {max_compute: -1}}", "-1"),
    case("sampler", "{tpe: {gamma: 0.25}}", "gamma is a function"), case("sampler", "{tpe: {n_startup_trials: ten}}", "'ten'"),
    case("sampler", "{tpe: {n_startup_trials: -5}}", "from 0", "-5"), case("sampler", "{tpe: {n_ei_candidates: 0}}", "from 1"),
    case("sampler", "{tpe: {weights: uniform}}", "weights is a function"),
    case("sampler", "{tpe: {multivariate: 'no'}}", "true or false"),
    case("sampler", "{nsga2: {population_size: 1}}", "from 2"),
    case("sampler", "{nsga2: {population_size: 2.5}}", "whole number"),
    case("sampler", "{nsga2: {crossover: uniform}}", "crossover is a function"),
    case("sampler", "{nsga2: {mutation_prob: 7}}", "7"),
    case("sampler", "{random: {seed: 1}}", "seed"), case("sampler", "tpee", "'tpee'"),
    case("compare", "{big: {widht: 2}}", "widht"), case("compare", "yes", "mapping", "'yes'"),
    case("compare", "{static: on}", "write true"),
    case("compare", "{small: {}}", "known are"),
]  # fmt: skip
PLACES = [
    case("name", "yes", "'yes'"), case("name", "2024", "'2024'"), case("name", "x" * 300, "at most 100"),
    case("name", "../up", "'../up'"),
    case("name", "a/b", "'a/b'"), case("name", "'a b'", "'a b'"), case("name", "''", "''"), case("name", ".hidden", "'.hidden'"),
    case("name", "[c]", "text"), case("root", "''", "path"), case("root", "pyproject.toml/runs", "is a file"),
    case("root", "5", "path"),
    case("task", "{dataset: digitz, network: mlp}", "did you mean 'digits'"),
    case("task", "{dataset: digits, network: mpl}", "mlp"),
    case("task", "{dataset: digits}", "missing"), case("task", "digits", "mapping"), case("task", "~", "mapping"),
    case("task", "{dataset: 3, network: mlp}", "text", "3"),
    case("task", "{dataset: digits, network: mlp, loss: mse}", "regression"),
    case("task", "{dataset: digits, network: mlp, loss: {cross_entropy: {label_smoothing: 2}}}", "label_smoothing", "2"),
    case("task", "{dataset: digits, network: mlp, loss: {cross_entropy: {smothing: 0.1}}}", "smothing"),
    case("task", "{dataset: digits, network: mlp, dataset_args: {limit_train: 0}}", "limit", "0"),
    case("task", "{dataset: digits, network: mlp, dataset_args: {limit_train: -5}}", "limit", "-5"),
    case("task", "{dataset: digits, network: mlp, dataset_args: {foo: 1}}", "foo"),
    case("task", "{dataset: digits, network: mlp, network_args: {hidden: many}}", "many"),
    case("task", "{dataset: digits, network: mlp, network_args: {hidden: [0]}}", "widths", "at least 1"),
    case("task", "{dataset: digits, network: mlp, network_args: {hiden: [8]}}", "hiden"),
    case("task", "{dataset: digits, network: resnet, network_args: {depth: 7}}", "depth", "7"),
    case("task", "{dataset: digits, network: resnet, network_args: {depth: -1}}", "depth", "-1"),
    case("task", "{dataset: digits, network: resnet, network_args: {depth: 8, width: -1}}", "width", "-1"),
    case("task", "{dataset: digits, network: mlp, network_args: {1: 2}}", "key", "'1'"),
    case("task", "{dataset: cifar10, network: vgg11}", "data_dir"),
    case("task", "{dataset: digits, network: mlp, data_dir: /none}", "'/none'"),
]  # fmt: skip
BOMB = "&a [1, 2, 3, 4, 5, 6, 7, 8]\n" + "".join(
    f"{x}: &{x} [{', '.join(['*' + chr(ord(x) - 1)] * 8)}]\n" for x in "bcdefgh")
SYNTAX = [
    case("seed", "1\nseed: 2", "twice"), case("seed", "1\nsede: 2", "did you mean 'seed'"), case("name", "[c", "not valid YAML"),
    case("seed", BOMB, "at most", "values"), case("compare", "&x {big: *x}", "*x must stand outside"),
    case("seed", "[" * 3000, "nested at most 40"), case("name", "!!python/name:os.system c", "tag"),
    case("seed", "!!int '3'", "tag"),
    case("name", '"a\\0b"', "control characters"), case("name", "a\0b", "control characters"), case("seed", "0\n\t- 1", "YAML"),
    case("seed", "*nowhere", "nowhere"), case("seed", "0\n---\nname: d", "another document"), case("seed", "@3", "YAML"),
    case("seed", "0\n1: 2", "key", "'1'"), case("seed", "0\nyes: 2", "unknown key"),
    case("seed", "0\nbody: print", "package.module"),
    case("seed", "0\nbody: os:system", "class"),
]  # fmt: skip
CASES = [*NUMBERS, *TRAINING, *ADAPTATIONS, *SEARCH, *PLACES, *SYNTAX]


def test_the_table_is_long() -> None:
    assert len({(key, value) for key, value, _ in CASES}) == len(CASES) >= 120


IDS = [f"{key}: {value}"[:50].encode("unicode_escape").decode() for key, value, _ in CASES]


@pytest.mark.parametrize(("key", "value", "said"), CASES, ids=IDS)
def test_nonsense_is_refused(key: str, value: str, said: tuple[str, ...]) -> None:
    problems = check(written(**{key: value}))
    assert problems, "accepted"
    last = AT[key] + value.count("\n") + any("YAML" in word for word in said)
    assert all(AT[key] <= p.line <= last for p in problems), problems
    assert any(all(word in str(p) for word in said) for p in problems), problems
    assert len(problems) == 1 or any(word in ("missing", "YAML") for word in said), problems


FINE = [
    ("epochs", "10.0"), ("epochs", "0xA"), ("name", "on2"), ("name", "'2024'"), ("optimizer", "{sgd: {lr: 1e-1}}"),
    ("optimizer", "{sgd: {lr: {loguniform: [1e-4, 1e-1]}}}"), ("optimizer", "{sgd: {lr: {choice: [0.1]}}}"),
    ("optimizer", "{adam: {betas: [0.8, 0.99]}}"), ("optimizer", "{sgd: {lr: {uniform: [0.1, 0.2, 0.03]}}}"),
    ("optimizer", "adam"),
    ("training", "lr_schedule: {cosine: {warmup: 0.1}}"), ("training", "lr_schedule: {step: {at: [0.3, 0.6]}}"),
    ("epochs", "1"), ("adaptation", "elements: ['*']"),
    ("when", "never"), ("when", "initial"), ("when", "{periodic: {every: {int: [1, 40]}}}"), ("when", "{periodic: {until: 10}}"),
    ("when", "{choice: [never, {plateau: {patience: 2}}]}"), ("when", "{plateau: {metric: val_accuracy, patience: 2}}"),
    ("amount", "{seed: 1.5}"), ("amount", "8"), ("amount", "1.0"), ("amount", "{uniform: [0, 0.5]}"), ("amount", "{above: -1.5}"),
    ("metric", "val_loss"), ("metric", "parameters"), ("search", "and: {parameters: min}"),
    ("sampler", "{tpe: {n_startup_trials: 0}}"),
    ("sampler", "{tpe: {multivariate: true}}"), ("sampler", "{nsga2: {population_size: 4}}"),
    ("compare", "{big: {hidden: [64]}}"),
    ("compare", "~\nbody: tests.support.bodies:Quadratic"), ("seed", "9223372036854775807"), ("placement", "{local: {cpus: 4}}"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("key", "value"), FINE, ids=str)
def test_what_makes_sense_is_accepted(key: str, value: str) -> None:
    changes = {key: value} if "~" not in value else {key: value.replace("~", "{static: false}")}
    assert check(written(**changes)) == []


@REQUIRES_ROOT
def test_a_root_in_which_one_may_not_write_is_refused(open_folder: Path) -> None:
    (open_folder / "closed").mkdir(mode=0o700)
    for root, closed in (open_folder / "new" / "runs", open_folder), (open_folder / "closed" / "runs", open_folder / "closed"):
        said = as_stranger(lambda root=root: [str(p) for p in check(written(root=str(root)))])
        assert f"root: must be where you may make folders, but you may not write in '{closed}'" in str(said)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert "must be auto or cpu" in str(check(written(training="device: cuda")))
    assert "must be at most 0" in str(check(written(resources="{gpus: 1}")))


@pytest.mark.parametrize(("content", "said"), [
    ("# Größe\n".encode("latin-1"), "UTF-8"), ("name: c\n".encode("utf-16"), "UTF-8"), (b"#" * 300_000, "at most"),
    (b"a: \x00", "control characters"), (b"", "mapping"),
])  # fmt: skip
def test_files_that_are_none_are_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(CampaignError, match=said):
        load_campaign(tmp_path / "c.yaml")


@pytest.mark.parametrize("path", ["", ".", "none.yaml", "/dev/zero", "a\0b", "/dev/stdin"])
def test_what_is_no_file_is_refused_at_once(path: str, tmp_path: Path) -> None:
    with pytest.raises(CampaignError, match="file"):
        load_campaign(tmp_path / path if not path.startswith("/") else path)


def test_signs_of_windows_are_read(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"\xef\xbb\xbf" + written().replace("\n", "\r\n").encode())
    assert load_campaign(tmp_path / "c.yaml").name == "c"


@pytest.mark.parametrize("change", [{"epochs": "yes"}, {"amount": "0"}, {"seed": "[" * 3000}])
def test_the_command_leaves_nothing(
    change: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(written(**change))
    for command in ("plan", "run"):
        monkeypatch.setattr(sys, "argv", ["coppice", command, "c.yaml"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "nothing was started" in said and f"line {AT[next(iter(change))]}" in said and "Traceback" not in said
    assert [p.name for p in tmp_path.iterdir()] == ["c.yaml"]
