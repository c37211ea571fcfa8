"""The network that is copied out is the one whose metrics count, and loads again with what the README beside it says."""

import json
import math
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from coppice.methods.apply import apply
from coppice.methods.network import Network
from coppice.methods.networks.mlp import mlp
from coppice.methods.plan import GrowPlan
from coppice.methods.record.architecture import record, tensors_of
from coppice.orchestrator.cli.best import export_best
from coppice.orchestrator.config.models import Campaign, TrialSpec
from coppice.orchestrator.folder import checkpoint as checkpoints
from coppice.orchestrator.folder.checkpoint import Checkpoint
from coppice.orchestrator.folder.layout import CampaignFolder
from coppice.orchestrator.folder.trials import TrialRecords
from coppice.orchestrator.report.export import export, source_of
from coppice.orchestrator.report.networks import load_network
from coppice.orchestrator.tasks.catalog import DATASETS, load_dataset
from coppice.orchestrator.tasks.dataset import Dataset, Split, scales
from coppice.orchestrator.trial.trial import Trial
from tests.support.folders import create
from tests.support.waiting import LIMIT_S
from tests.support.zoo import flatnet

INPUT = (3, 32, 32)
CAMPAIGN: dict[str, Any] = {"name": "c", "task": {"dataset": "digits", "network": "mlp"}, "training": {"epochs": 2}}


def trial(folder: Path, average: float | None = None) -> Network:
    """A trial whose newest checkpoint holds a grown network, and where asked an average of it: its tensors times `average`."""
    torch.manual_seed(0)
    network = Network(flatnet(), "tests.support.zoo:flatnet", {"channels": 8}, (torch.zeros(2, *INPUT),))
    apply(network, GrowPlan("conv1.weight:0", 3))
    tensors: dict[str, Any] = {k: v.clone() for k, v in tensors_of(network).items()}
    if average is not None:
        floating = {k: v for k, v in tensors.items() if v.is_floating_point()}
        tensors |= {f"ema|{k}": v * average for k, v in floating.items()}
    checkpoints.write(folder / "checkpoints", 4, Checkpoint(record(network), tensors, {}, {"epoch": 4}))
    return network


def lines_of(readme: Path, nth: int = 0) -> str:
    """The nth indented block of the README."""
    blocks = [b for b in readme.read_text().split("\n\n") if b.startswith("    ")]
    return textwrap.dedent(blocks[nth])


def run(folder: Path, code: str) -> None:
    root = Path(__file__).parents[3]
    script = f"import sys; sys.path.insert(0, {str(root)!r})\n{code}"
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True, timeout=LIMIT_S)


def test_the_readme_loads_it_in_a_new_process(tmp_path: Path) -> None:
    network = trial(tmp_path / "00007")
    exported = export(tmp_path / "00007", tmp_path / "out", "97 %, 1,234 parameters.")
    assert exported.files == ("architecture.json", "model.safetensors", "README.md", "SHA256SUMS")
    assert "97 %, 1,234 parameters." in (tmp_path / "out" / "README.md").read_text()
    example = torch.randn(4, *INPUT)
    torch.save({"input": example, "output": network.module.eval()(example).detach()}, tmp_path / "expected.pt")
    check = "expected = __import__('torch').load('../expected.pt')\nassert model(expected['input']).equal(expected['output'])"
    run(tmp_path / "out", lines_of(tmp_path / "out" / "README.md") + "\n" + check)


def test_the_average_is_what_is_copied(tmp_path: Path) -> None:
    network = trial(tmp_path / "00000", average=0.5)
    export(tmp_path / "00000", tmp_path / "out", "")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert set(found) == set(tensors_of(network))
    assert found["conv1.weight"].equal(network.module.get_parameter("conv1.weight") * 0.5)


@pytest.mark.slow
def test_the_program_runs_without_our_code_for_any_batch(tmp_path: Path) -> None:
    network = trial(tmp_path / "00000")
    exported = export(tmp_path / "00000", tmp_path / "out", "", input_shape=INPUT, trust=["tests"])
    assert "model.pt2" in exported.files
    example = torch.randn(5, *INPUT)
    torch.save({"input": example, "output": network.module.eval()(example).detach()}, tmp_path / "expected.pt")
    code = lines_of(tmp_path / "out" / "README.md", 1)
    check = "expected = torch.load('../expected.pt')\ntorch.testing.assert_close(model(expected['input']), expected['output'])"
    script = f"{code}\n{check}\nimport sys\nassert 'coppice' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path / "out", check=True, timeout=LIMIT_S)


def test_a_trial_without_a_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must have a checkpoint to copy the network from"):
        export(tmp_path / "nothing", tmp_path / "out", "")


def history(folder: Path, epochs: int = 2) -> CampaignFolder:
    """A campaign of one trial with a checkpoint after each of its epochs, whose accuracy is a tenth of the epoch."""
    campaign = CampaignFolder(folder / "c")
    create(campaign, Campaign.model_validate(CAMPAIGN))
    TrialRecords(campaign).add("t0000", {k: CAMPAIGN[k] for k in ("task", "training")}, 0)
    rows = [{"epoch": float(e), "val_accuracy": e / 10, "parameters": 100.0 * e} for e in range(1, epochs + 1)]
    torch.manual_seed(0)
    network = Network(mlp(64, 10, hidden=[4]), "coppice.methods.networks.mlp:mlp",
                      {"in_features": 64, "out_features": 10, "hidden": [4]}, (torch.zeros(2, 64),))
    for row in rows:
        content = Checkpoint(record(network), tensors_of(network), {}, {"history": rows[: int(row["epoch"])], "scaled": True})
        checkpoints.write(campaign.trial("t0000").checkpoints, int(row["epoch"]), content)
        campaign.trial("t0000").append_event({"type": "metrics", "trial": "t0000", "time": 1.0, "step": 1, **row})
    TrialRecords(campaign).mark("t0000", "finished", {"epoch": epochs})
    return campaign


def test_what_is_copied_has_its_own_figures_where_the_newest_checkpoint_is_damaged(tmp_path: Path) -> None:
    campaign = history(tmp_path)
    whole = export_best(campaign.path)
    assert (whole.summary, whole.damaged) == ("20.00 % validation accuracy, 200 parameters.", ())
    model = campaign.trial("t0000").checkpoints / "000002" / "model.safetensors"
    model.write_bytes(bytes([model.read_bytes()[0] ^ 1]) + model.read_bytes()[1:])
    older = export_best(campaign.path)
    assert older.summary == "10.00 % validation accuracy, 100 parameters after epoch 1 of 2."
    readme = (campaign.best / "README.md").read_text()
    assert older.summary in readme and "20.00 %" not in readme
    assert str(model) in older.damaged[0] and str(model) in readme
    with pytest.warns(UserWarning, match="000001, because: .*000002.*CRC-32 differs"):
        load_network(campaign.trial("t0000").path)


def test_a_running_trial_has_the_figures_of_its_checkpoint(tmp_path: Path) -> None:
    campaign = history(tmp_path)
    head = {"type": "metrics", "trial": "t0000", "time": 1.0, "step": 1}
    campaign.trial("t0000").append_event({**head, "epoch": 3, "val_accuracy": 0.9, "parameters": 900.0})
    assert export_best(campaign.path).summary == "20.00 % validation accuracy, 200 parameters after epoch 2 of 2."


@pytest.mark.parametrize("name", ["architecture.json", "model.safetensors", "SHA256SUMS"])
def test_a_copy_that_was_damaged_is_not_loaded(tmp_path: Path, name: str) -> None:
    campaign = history(tmp_path)
    export_best(campaign.path)
    load_network(campaign.best)
    content = bytearray((campaign.best / name).read_bytes())
    content[len(content) // 2] ^= 1
    (campaign.best / name).write_bytes(content)
    with pytest.raises(ValueError, match="must be what SHA256SUMS beside it says, but is damaged"):
        load_network(campaign.best)


def dataset(kind: str) -> Dataset:
    """Digits, in ways in which data is normalised: in batches, from bytes, already while loading, targets too."""
    if kind in DATASETS:
        return load_dataset(kind)
    data = load_dataset("digits")
    splits = [Split(s.inputs.flatten(1).float() * 12 + 700, s.targets) for s in (data.train, data.val)]
    values = {"mean": {"mean": torch.tensor(758.6)}, "std": {"std": torch.tensor(72.0)},
              "both": {"mean": torch.tensor(758.6), "std": torch.tensor(72.0)}, "neither": {}}[kind]
    return Dataset(kind, splits[0], splits[1], None, "classification", 10, (64,), **values)


@pytest.mark.parametrize("kind", ["both", "mean", "std", "neither", "digits", "wine", "diabetes"])
def test_the_program_does_what_the_campaign_measured_on_the_data_set_as_it_is(tmp_path: Path, kind: str) -> None:
    data = dataset(kind)
    torch.manual_seed(0)
    sizes = {"in_features": math.prod(data.input_shape), "out_features": data.num_outputs, "hidden": [16]}
    network = Network(mlp(**sizes), "coppice.methods.networks.mlp:mlp", sizes, (torch.zeros(2, *data.input_shape),))
    tensors = {**tensors_of(network), **{f"data|{k}": v for k, v in scales(data).items()}}
    checkpoints.write(tmp_path / "t" / "checkpoints", 1, Checkpoint(record(network), tensors, {}, {"scaled": True}))
    export(tmp_path / "t", tmp_path / "out", "", input_shape=data.input_shape)
    network.module.eval()
    expected = network.module(data.normalise(data.val.inputs))
    raw = data.val.inputs if data.input_scale is None else data.val.inputs * data.input_scale.std + data.input_scale.mean
    if data.target_scale is not None:
        expected = expected * data.target_scale.std + data.target_scale.mean
    found = torch.export.load(tmp_path / "out" / "model.pt2").module()(raw)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, check_dtype=False)
    said = (tmp_path / "out" / "README.md").read_text()
    written = json.loads((tmp_path / "out" / "architecture.json").read_text())["data"]
    assert sorted(written) == sorted({k.partition(".")[0] for k in scales(data)})
    assert ("does the normalisation" in said) == bool(written) == (kind != "neither")
    if kind in ("both", "wine"):  # as the README says
        by_hand = lines_of(tmp_path / "out" / "README.md", 1)
        names: dict[str, Any] = {"inputs": raw}
        exec(by_hand.replace('"architecture.json"', repr(str(tmp_path / "out" / "architecture.json"))), names)
        torch.testing.assert_close(network.module(names["inputs"]), expected, rtol=1e-4, atol=1e-4)


def test_a_trial_keeps_how_its_data_is_normalised(tmp_path: Path) -> None:
    spec = TrialSpec.model_validate({"task": {"dataset": "wine", "network": "mlp"}, "training": {"epochs": 1}})
    Trial.open(spec, tmp_path / "t").run()
    found = source_of(tmp_path / "t").scales
    assert found is not None and sorted(found) == ["inputs.mean", "inputs.std"]
    assert torch.equal(found["inputs.mean"], scales(load_dataset("wine"))["inputs.mean"])
