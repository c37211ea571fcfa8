"""Thirty random changes of any network, while it trains, are written down and come back bit by bit in another process."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from coppice.methods.network import Network
from coppice.methods.record.architecture import rebuild, record, tensors_of
from tests.methods import walking
from tests.support.waiting import LIMIT_S
from tests.support.zoo import ZOO
from tests.support.zoo_more import MORE

NETWORKS = {**ZOO, **MORE}
NUM_STEPS = 30
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network_of(name: str, seed: int = 0) -> Network:
    factory, inputs = NETWORKS[name]
    torch.manual_seed(seed)
    return Network(factory(), f"{factory.__module__}:{factory.__name__}", {}, inputs())


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Tensor], dict[str, Tensor], dict[str, int]]]:
    """By network: what it does after its walk, what it does in a new process, and what was done to it."""
    folder = tmp_path_factory.mktemp("walks")
    here = {}
    for name in NETWORKS:
        network = network_of(name)
        optimizers, done = walking.walk(network, NUM_STEPS, seed=len(name))
        walking.save(folder / name, network, optimizers)
        here[name] = walking.go_on(network, optimizers), done
    command = [sys.executable, "-m", "tests.methods.walking", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=LIMIT_S)
    return {name: (found, load_file(folder / name / "elsewhere.safetensors"), done) for name, (found, done) in here.items()}


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_walk_comes_back_in_another_process(name: str, walked: dict) -> None:
    here, elsewhere, done = walked[name]
    assert sum(done.values()) == NUM_STEPS
    assert here.keys() == elsewhere.keys()
    assert all(bool(t.isfinite().all()) for t in here.values())
    different = [key for key in here if here[key].shape != elsewhere[key].shape or bits(here[key]) != bits(elsewhere[key])]
    assert not different
    moved = [key for key in here if key.startswith("sgd/") and bits(here[key]) != bits(here[key.replace("sgd/", "adamw/")])]
    assert moved, "the two optimizers must have trained something, each in its own way"


@pytest.mark.slow
def test_walks_do_everything(walked: dict) -> None:
    total: dict[str, int] = {}
    for _, _, done in walked.values():
        for kind, count in done.items():
            total[kind] = total.get(kind, 0) + count
    assert total.keys() == {"grow", "prune", "insert", "remove", "mask"}
    assert min(total.values()) > len(NETWORKS)


@pytest.mark.parametrize("name", ["resnet", "tied_lm", "lstm"])
def test_record_of_a_rebuilt_network_is_the_same(name: str) -> None:
    network = network_of(name, seed=1)
    walking.walk(network, 12, seed=3)
    saved = record(network)
    again = rebuild(json.loads(json.dumps(saved)), tensors_of(network), example_inputs=network.example_inputs, trust=["tests"])
    assert record(again) == saved
    assert [e.name for e in again.elements()] == [e.name for e in network.elements()]
    assert again.masks.keys() == network.masks.keys()
    walking.walk(again, 3, seed=4)
