"""The network that is copied out is the one whose metrics count, and loads again with what the README beside it says."""

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
from coppice.methods.plan import GrowPlan
from coppice.methods.record.architecture import record, tensors_of
from coppice.orchestrator.folder import checkpoint as checkpoints
from coppice.orchestrator.folder.checkpoint import Checkpoint
from coppice.orchestrator.report.export import export
from tests.support.zoo import flatnet

INPUT = (3, 32, 32)


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
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True, timeout=120)


def test_the_readme_loads_it_in_a_new_process(tmp_path: Path) -> None:
    network = trial(tmp_path / "00007")
    exported = export(tmp_path / "00007", tmp_path / "out", "97 %, 1,234 parameters.")
    assert exported.files == ("architecture.json", "model.safetensors", "README.md")
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
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path / "out", check=True, timeout=120)


def test_a_trial_without_a_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must have a checkpoint to copy the network from"):
        export(tmp_path / "nothing", tmp_path / "out", "")
