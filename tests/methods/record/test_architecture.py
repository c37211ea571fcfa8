"""Records of changed networks: what they hold, how they come back, and that damage is never loaded silently."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from coppice.methods.apply import apply
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan, InsertPlan, MaskPlan, PrunePlan, RemovePlan
from coppice.methods.record.architecture import ArchitectureError, import_factory, rebuild, record, tensors_of
from coppice.methods.surgery.optimizer_state import load_optimizer_state, optimizer_state

ME = "tests.methods.record.test_architecture"


class Tied(nn.Module):
    """A tied weight, a buffer that no state dict holds, and a batch norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(9, width)
        self.register_buffer("temperature", torch.ones(()), persistent=False)
        self.hidden = nn.Linear(width, 2 * width)
        self.norm = nn.BatchNorm1d(2 * width)
        self.act = nn.ReLU()
        self.back = nn.Linear(2 * width, width)
        self.head = nn.Linear(width, 9, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.tokens(x).mean(1) * self.temperature
        return self.head(h + self.back(self.act(self.norm(self.hidden(h)))))


def tied(width: int = 4) -> nn.Module:
    return Tied(width)


def number() -> int:
    return 3


def network() -> Network:
    """Tied, grown, pruned, deepened, masked and partly frozen."""
    torch.manual_seed(0)
    n = Network(tied(4), f"{ME}:tied", {"width": 4}, (torch.randint(0, 9, (6, 5)),))
    n.module.tokens.weight.requires_grad_(False)
    n.module.temperature.fill_(0.75)
    n.module(*n.example_inputs)
    apply(n, GrowPlan("tokens.weight:1", 3))
    apply(n, PrunePlan("hidden.weight:0", (1, 2)))
    apply(n, InsertPlan("after:act", "identity_linear"))
    apply(n, InsertPlan("after:hidden", "residual_linear", {"width": 5}))
    apply(n, MaskPlan({"back.weight": torch.rand(7, 6) > 0.3}))
    return n


@pytest.fixture(scope="module")
def saved() -> tuple[Network, dict[str, Any], dict[str, Tensor]]:
    n = network()
    return n, json.loads(json.dumps(record(n), allow_nan=False)), tensors_of(n)


Saved = tuple[Network, dict[str, Any], dict[str, Tensor]]


def test_everything_comes_back(saved: Saved, tmp_path: Path) -> None:
    n, written, tensors = saved
    save_file({k: t.contiguous() for k, t in tensors.items()}, tmp_path / "model.safetensors")
    again = rebuild(written, tmp_path / "model.safetensors", example_inputs=n.example_inputs, trust=["tests"])
    for mode in (False, True):
        assert torch.equal(again.module.train(mode)(*n.example_inputs), copy.deepcopy(n.module).train(mode)(*n.example_inputs))
    assert type(again.module) is Tied and again.module.head.weight is again.module.tokens.weight
    assert float(again.module.temperature) == 0.75
    assert [p.requires_grad for p in again.module.parameters()] == [p.requires_grad for p in n.module.parameters()]
    assert torch.equal(again.masks["back.weight"], n.masks["back.weight"]) and again.masks["back.weight"].dtype == torch.bool
    assert again.num_parameters() == n.num_parameters()
    assert (again.edits, again.attributes, again.lineage) == (n.edits, n.attributes, n.lineage)
    assert again.module.hidden.in_features == 7 and again.module.norm.num_features == 6


def test_only_differences_are_recorded(saved: Saved) -> None:
    fresh = Network(tied(4), f"{ME}:tied", {"width": 4})
    written = record(fresh)
    assert written["shapes"] == {} and written["edits"] == [] and written["requires_grad"] == {}
    assert len(json.dumps(written)) < 400
    assert saved[1]["base_hash"] == written["base_hash"]
    assert "norm.num_batches_tracked" not in saved[1]["shapes"] and saved[1]["shapes"]["tokens.weight"] == [9, 7]
    assert not any(name == "head.weight" for name in saved[2])


def test_recording_draws_no_random_numbers(saved: Saved) -> None:
    n, written, tensors = saved
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    record(n)
    rebuild(written, tensors, trust=["tests"])
    assert torch.equal(torch.rand(3), expected)


def test_changed_precision_comes_back() -> None:
    n = network()
    n.module.double()
    again = rebuild(record(n), tensors_of(n), trust=["tests"])
    x = n.example_inputs
    assert torch.equal(again.module.eval()(*x), n.module.eval()(*x)) and again.module.hidden.weight.dtype == torch.float64


def _edit(path: str, value: Any) -> Callable[[dict, dict], None]:
    def change(written: dict, tensors: dict) -> None:
        *way, last = path.split("/")
        for key in way:
            written = written[int(key) if isinstance(written, list) else key]
        written[last] = value

    return change


def _drop(name: str) -> Callable[[dict, dict], None]:
    return lambda written, tensors: tensors.pop(name)


def _add(name: str, value: Tensor) -> Callable[[dict, dict], None]:
    return lambda written, tensors: tensors.update({name: value})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_edit("format", "coppice-architecture/3"), "must have format .*/2', but has 'coppice-architecture/3'"),
        (_edit("shapes", None), "shapes.* are missing or damaged"),
        (_edit("factory", {}), "factory.* are missing or damaged"),
        (_edit("factory/reference", "tests.methods.nowhere:tied"), "must be importable"),
        (_edit("factory/reference", f"{ME}:untied"), "has no 'untied'"),
        (_edit("factory/reference", f"{ME}:ME"), "must be callable"),
        (_edit("factory/reference", f"{ME}:number"), "must accept"),
        (_edit("factory/reference", "tied"), "package.module:attribute"),
        (_edit("factory/arguments", {"width": 5}), "names or shapes of its tensors differ"),
        (_edit("factory/arguments", {"depth": 5}), "must accept .*depth"),
        (_edit("base_hash", "sha256:0"), "names or shapes of its tensors differ"),
        (_edit("shapes/hidden.weight", [6, 8]), r"hidden.weight: \[6, 7\] instead of \[6, 8\]"),
        (_edit("shapes/hidden.weight", [6, -1]), "hidden.weight.* have other values"),
        (_edit("shapes/nothing.weight", [6]), "nothing.weight.* no such tensors"),
        (_edit("edits/0/at", "nowhere"), "edits must fit"),
        (_edit("edits/0/op", "explode"), "must be insert, identity or zero"),
        (_edit("edits/0/kind", "spell"), "must be one of"),
        (_edit("edits/0/name", "other"), "missing: .*act.other.*unexpected: .*act.grown_0"),
        (_edit("attributes/hidden|wings", 2), "no such attribute"),
        (_edit("attributes/hidden|forward", 2), "numbers only"),
        (_edit("attributes/hidden|in_features", "x"), "numbers only"),
        (_edit("masks", []), "masks that differ: .*back.weight"),
        (_drop("back.weight"), "missing: .*back.weight"),
        (_drop("temperature"), "missing: .*temperature"),
        (_drop("mask.back.weight"), "masks that differ: .*back.weight"),
        (_add("stranger", torch.zeros(2)), "unexpected: .*stranger"),
        (_add("mask.stranger", torch.zeros(2)), "masks that differ: .*stranger"),
        (_add("mask.back.weight", torch.zeros(2)), r"mask.back.weight: \[2\] instead of \[7, 6\]"),
        (_add("back.bias", torch.zeros(2)), r"back.bias: \[2\] instead of \[7\]"),
    ],
)
def test_damage_is_one_clear_error(saved: Saved, damage: Callable[[dict, dict], None], message: str) -> None:
    _, written, tensors = saved
    written, tensors = copy.deepcopy(written), dict(tensors)
    damage(written, tensors)
    with pytest.raises(ArchitectureError, match=message):
        rebuild(written, tensors, trust=["tests"])


def test_a_factory_must_make_a_module() -> None:
    with pytest.raises(ArchitectureError, match=r"must return a torch\.nn\.Module, but returned a int"):
        record(Network(tied(), f"{ME}:number"))
    assert import_factory("torch.nn:Linear") is nn.Linear


def test_removed_after_inserted_is_replayed_in_order() -> None:
    n = network()
    apply(n, RemovePlan("hidden.grown_0"))
    apply(n, InsertPlan("after:hidden", "residual_linear", {"width": 2}))
    again = rebuild(record(n), tensors_of(n), trust=["tests"])
    x = n.example_inputs
    assert torch.equal(again.module.eval()(*x), n.module.eval()(*x))
    assert [name for name, _ in again.module.named_parameters()] == [name for name, _ in n.module.named_parameters()]


def trained(n: Network, kind: str) -> torch.optim.Optimizer:
    held = [p for p in n.module.parameters() if p.requires_grad]
    sgd = kind == "sgd"
    optimizer = torch.optim.SGD(held, 0.1, momentum=0.9) if sgd else torch.optim.AdamW(held, 0.1, betas=(0.8, 0.9))
    optimizer.zero_grad()
    n.module(*n.example_inputs).square().sum().backward()
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_optimizer_state_comes_back(kind: str) -> None:
    n = network()
    optimizer = trained(n, kind)
    optimizer.param_groups[0]["lr"] = 0.05
    optimizer.param_groups[0]["initial_lr"] = 0.1
    tensors, rest = optimizer_state(optimizer, n.module)
    other = trained(n, kind)
    load_optimizer_state(other, n.module, tensors, json.loads(json.dumps(rest)))
    found, expected = other.state_dict(), optimizer.state_dict()
    assert found["param_groups"] == expected["param_groups"]
    for i, entries in expected["state"].items():
        assert all(torch.equal(found["state"][i][k], v) for k, v in entries.items() if isinstance(v, Tensor))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda t, r: t.update({"nothing/momentum_buffer": torch.zeros(2)}), "nothing.* are not trained"),
        (lambda t, r: r["groups"][0]["parameters"].remove("back.bias"), "back.bias.* are not in the state"),
        (lambda t, r: r["groups"][0]["parameters"].append("tokens.weight"), "tokens.weight.* are not trained"),
        (lambda t, r: t.update({"back.bias/momentum_buffer": torch.zeros(2)}), r"of back.bias must have shape \(7,\)"),
        (lambda t, r: r["groups"].append(r["groups"][0]), "must have 2 parameter groups, but has 1"),
        (lambda t, r: r["groups"][0]["options"].pop("nesterov"), "same kind of optimizer.*nesterov"),
    ],
)
def test_optimizer_state_that_does_not_fit_is_refused(damage: Callable[[dict, dict], None], message: str) -> None:
    n = network()
    tensors, rest = optimizer_state(trained(n, "sgd"), n.module)
    rest = copy.deepcopy(rest)
    damage(tensors, rest)
    fresh = trained(n, "sgd")
    before = copy.deepcopy(fresh.state_dict())
    with pytest.raises(ValueError, match=message):
        load_optimizer_state(fresh, n.module, tensors, rest)
    assert str(fresh.state_dict()) == str(before)


def test_an_optimizer_of_another_network_is_refused() -> None:
    n = network()
    with pytest.raises(ValueError, match="must be a parameter of the network, but one of shape"):
        optimizer_state(torch.optim.SGD(nn.Linear(2, 3).parameters(), 0.1), n.module)


def test_elements_are_found_without_example_inputs_being_given(saved: Saved) -> None:
    n, written, tensors = saved
    assert written["example_inputs"] == [{"shape": [6, 5], "dtype": "int64"}]
    again = rebuild(written, tensors, trust=["tests"])
    assert [e.name for e in again.elements()] == [e.name for e in n.elements()]


def test_a_record_of_before_asks_for_example_inputs(saved: Saved) -> None:
    _, written, tensors = saved
    again = rebuild({k: v for k, v in written.items() if k != "example_inputs"}, tensors, trust=["tests"])
    with pytest.raises(ValueError, match=r"must have example inputs .* its forward takes x: give example_inputs to"):
        again.elements()


@pytest.mark.parametrize("wrong", [[{"shape": [-1], "dtype": "int64"}], [{"shape": [1], "dtype": "evil"}], 3, [{}], [[]]])
def test_damaged_example_inputs_are_named(saved: Saved, wrong: Any) -> None:
    _, written, tensors = saved
    with pytest.raises(ArchitectureError, match="example_inputs must be a list of"):
        rebuild({**written, "example_inputs": wrong}, tensors, trust=["tests"])


def test_a_record_can_be_loaded_as_weights_only(saved: Saved, tmp_path: Path) -> None:
    torch.save({"record": record(saved[0])}, tmp_path / "a.pt")
    assert torch.load(tmp_path / "a.pt", weights_only=True)["record"] == record(saved[0])
