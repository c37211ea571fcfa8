"""Insertion and removal of layers and blocks: exact where they say so, and no name of another tensor changes."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coppice.methods.apply import apply
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan, InsertPlan, PrunePlan, RemovePlan
from coppice.methods.surgery.check import PlanError
from coppice.methods.surgery.followers import OptimizerFollower
from coppice.methods.surgery.layers import KINDS, channel_statistics, insert


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.last = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.last(self.conv2(F.relu(self.conv1(x)))))


class Scale(nn.Sequential):
    """A sequence with a forward of its own, which does not run what is appended to it."""

    def forward(self, input: Tensor) -> Tensor:
        return input + 0.5 * self[0](input)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
        self.blocks = nn.Sequential(Block(6), Block(6))
        self.branch = nn.Conv2d(6, 6, 1)
        self.scale = Scale(nn.Conv2d(6, 6, 1))
        self.hidden, self.act, self.head = nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))
        x = self.scale(x + self.branch(x))
        return self.head(self.act(self.hidden(x.mean((2, 3)))))


def net() -> Network:
    torch.manual_seed(0)
    module = Net().eval()
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(), m.running_var.uniform_(0.5, 2)
    return Network(module, "tests.methods.surgery.test_layers:Net", {}, (torch.randn(4, 3, 8, 8),))


@pytest.mark.parametrize(
    ("at", "kind", "arguments"),
    [
        ("stem.0", "identity_conv", {}),
        ("stem.1", "identity_conv", {}),
        ("act", "identity_linear", {}),
        ("hidden", "identity_linear", {}),
        ("hidden", "residual_linear", {"width": 3}),
        ("hidden", "residual_linear", {"batch_norm": True}),
        ("blocks.0.conv1", "residual_conv", {"width": 5, "batch_norm": True}),
        ("blocks.0", "residual_conv", {}),
        ("blocks.1", "duplicate", {}),
        ("scale", "residual_conv", {}),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_the_function_and_all_names_stay(at: str, kind: str, arguments: dict, training: bool) -> None:
    n = net()
    n.module.train(training)
    before = n.module(*n.example_inputs)
    names = list(dict(n.module.named_parameters()))
    apply(n, InsertPlan(f"after:{at}", kind, arguments))
    assert torch.equal(n.module(*n.example_inputs), before)
    new = [name for name, _ in n.module.named_parameters() if name not in names]
    assert new and all(name.startswith(f"{at}.grown_0.") for name in new)
    assert [name for name, _ in n.module.named_parameters() if name in names] == names


def test_what_was_put_in_is_run_and_trained() -> None:
    n = net()
    optimizer = torch.optim.SGD(n.module.parameters(), 0.1)
    for at, kind in [("stem.1", "identity_conv"), ("hidden", "residual_linear"), ("scale", "residual_conv")]:
        apply(n, InsertPlan(f"after:{at}", kind), [OptimizerFollower(optimizer, n.module)])
    inserted = [p for name, p in n.module.named_parameters() if "grown_" in name]
    n.module.train()(*n.example_inputs).square().sum().backward()
    assert len(n.edits) == 3 and all(p.grad is not None for p in inserted)
    held = {id(p) for g in optimizer.param_groups for p in g["params"]}
    assert all(id(p) in held for p in inserted)


def test_copies_train_and_move_like_any_module() -> None:
    n = net()
    apply(n, InsertPlan("after:hidden", "residual_linear"))
    apply(n, InsertPlan("after:stem.1", "identity_conv"))
    twin = copy.deepcopy(n.module)
    with torch.no_grad():
        twin.hidden.grown_0.last.weight.fill_(1.0)
    x = n.example_inputs
    assert not torch.equal(twin(*x), n.module(*x))
    values = {k: v.clone() for k, v in twin.state_dict().items()}
    assert torch.equal(torch.func.functional_call(n.module, values, x), twin(*x))
    n.module.load_state_dict(values)
    assert torch.equal(n.module(*x), twin(*x))
    double = twin.double()(x[0].double())
    assert double.dtype == torch.float64 and not twin.train(False).hidden.grown_0.training


def test_inserted_blocks_grow_shrink_and_go_away_again() -> None:
    n = net()
    before = n.module(*n.example_inputs)
    apply(n, InsertPlan("after:hidden", "residual_linear", {"width": 3}))
    inner = "hidden.grown_0.first.weight:0"
    assert apply(n, GrowPlan(inner, 2), certify=n.example_inputs).function_change == 0
    apply(n, PrunePlan(inner, (0, 4)))
    assert n.module.hidden.grown_0.first.out_features == 3
    apply(n, GrowPlan("hidden.weight:0", 2))
    apply(n, RemovePlan("hidden.grown_0"))
    torch.testing.assert_close(n.module(*n.example_inputs), before)
    assert not [k for k in n.module.state_dict() if "grown_0" in k]
    apply(n, InsertPlan("after:hidden", "residual_linear"))
    assert "hidden.grown_1.last.weight" in n.module.state_dict()


def test_removal_passes_on_or_zeroes() -> None:
    n = net()
    x = n.module.stem(n.example_inputs[0])
    optimizer = torch.optim.SGD(n.module.parameters(), 0.1, momentum=0.9)
    num = len(optimizer.param_groups[0]["params"])
    expected = n.module.blocks[1](x)
    apply(n, RemovePlan("blocks.0"), [OptimizerFollower(optimizer, n.module)])
    assert torch.equal(n.module.blocks(x), expected)
    assert n.edits == [{"op": "identity", "at": "blocks.0"}]
    assert len(optimizer.param_groups[0]["params"]) == num - 5
    assert not [k for k in n.module.state_dict() if k.startswith("blocks.0")]
    apply(n, RemovePlan("branch"))
    assert n.edits[1] == {"op": "zero", "at": "branch"} and not n.module.branch(x).any()


def test_what_was_put_behind_a_removed_module_stays() -> None:
    n = net()
    apply(n, InsertPlan("after:blocks.0", "residual_conv"))
    apply(n, InsertPlan("after:blocks.0", "residual_conv"))
    with torch.no_grad():
        for child in (n.module.blocks[0].grown_0, n.module.blocks[0].grown_1):
            child.last.weight.normal_(0, 0.1)
    x = n.module.stem(n.example_inputs[0])
    expected = n.module.blocks[0].grown_0(n.module.blocks[0].grown_1(x))
    n.masks["blocks.0.grown_0.last.weight"] = torch.ones(6, 6, 3, 3, dtype=torch.bool)
    n.masks["blocks.0.conv1.weight"] = torch.ones(6, 6, 3, 3, dtype=torch.bool)
    apply(n, RemovePlan("blocks.0"))
    assert torch.equal(n.module.blocks[0](x), expected)
    assert list(n.masks) == ["blocks.0.grown_0.last.weight"]


def test_the_last_scale_of_a_copy_is_found_by_what_it_does() -> None:
    """`Block` registers its layers in another order than it runs them."""
    n = net()
    apply(n, InsertPlan("after:blocks.1", "duplicate", {"last": "zero"}))
    made = n.module.blocks[1].grown_0
    assert not made.last.weight.any() and not made.last.bias.any() and made.conv1.weight.any()
    assert torch.equal(made.conv2.weight, n.module.blocks[1].conv2.weight)
    other = net()
    apply(other, InsertPlan("after:blocks.1", "duplicate", {"last": "normal"}, seed=3))
    drawn = other.module.blocks[1].grown_0.last.weight
    assert torch.equal(drawn, torch.randn(6, generator=torch.Generator().manual_seed(3)))


def test_a_block_is_copied_without_the_copies_behind_it() -> None:
    n = net()
    for _ in range(2):
        apply(n, InsertPlan("after:blocks.1", "duplicate", {"last": "normal"}))
    assert list(dict(n.module.blocks[1].grown_1.named_children())) == ["last", "conv2", "conv1"]
    assert "duplicate" not in n.element("after:branch").kinds


def test_identity_with_batch_norm_of_measured_statistics() -> None:
    n = net()
    held = channel_statistics(n, "stem.1", n.example_inputs)
    before = n.module(*n.example_inputs)
    apply(n, InsertPlan("after:stem.1", "identity_conv", {"batch_norm": held}))
    torch.testing.assert_close(n.module(*n.example_inputs), before, rtol=1e-5, atol=1e-5)
    n.module.stem.train()
    torch.testing.assert_close(n.module(*n.example_inputs), before, rtol=1e-4, atol=1e-4)
    assert n.edits[0]["arguments"] == {"size": 6, "batch_norm": True, "relu": True}


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (InsertPlan("after:hidden", "residual_conv"), "behind hidden one of"),
        (InsertPlan("after:hidden", "residual_linear", {"widht": 3}), "takes the arguments .*width.* got .*widht"),
        (InsertPlan("after:hidden", "residual_linear", {"width": 0}), "width must be a whole number >= 1, but is 0"),
        (InsertPlan("after:blocks.1", "duplicate", {"last": "ones"}), "zero, uniform or normal"),
        (InsertPlan("after:stem.1", "identity_conv", {"batch_norm": {"mean": [0.0], "var": [1.0]}}), "statistics of 6 channels"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_changes(plan: InsertPlan, message: str) -> None:
    n = net()
    keys = list(n.module.state_dict())
    with pytest.raises(ValueError, match=message):
        apply(n, plan)
    with pytest.raises(ValueError, match=message):
        insert(n, plan)
    assert list(n.module.state_dict()) == keys and not n.edits


class Reads(nn.Module):
    """Its forward reads an attribute of a layer that could otherwise go."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        return self.c(x + self.b(x) * (1 if self.b.in_features else 0))


def test_what_is_read_from_outside_is_not_removed() -> None:
    torch.manual_seed(0)
    n = Network(Reads(), "tests.methods.surgery.test_layers:Reads", {}, (torch.randn(2, 4),))
    before = n.module(*n.example_inputs)
    with pytest.raises(PlanError, match=r"b must be permissible, but is not: what calls it reads its attribute in_features"):
        apply(n, RemovePlan("b"))
    assert torch.equal(n.module(*n.example_inputs), before) and not n.edits
    with pytest.raises(PlanError):
        apply(n, RemovePlan("a"))


def test_kinds_are_described() -> None:
    assert set(KINDS) == {"identity_linear", "identity_conv", "residual_linear", "residual_conv", "duplicate"}


def test_an_insertion_starts_with_the_values_of_its_plan_also_after_growth():
    torch.manual_seed(0)
    network = Network(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), "x:y", {}, (torch.randn(2, 3),))
    values = {"first.weight": torch.randn(5, 4), "last.weight": torch.randn(4, 5), "first.bias": torch.randn(5)}
    apply(network, GrowPlan("0.weight:0", 2))
    apply(network, InsertPlan("after:1", "residual_linear", {"width": 5}, values=values))
    block = network.module[1].grown_0
    assert torch.equal(block.first.weight, torch.cat([values["first.weight"], torch.zeros(5, 2)], dim=1))
    assert torch.equal(block.last.weight, torch.cat([values["last.weight"], torch.zeros(2, 5)]))
    assert torch.equal(block.first.bias, values["first.bias"]) and not block.last.bias.any()
    for wrong in ({"middle": torch.zeros(1)}, {"first.weight": torch.zeros(6, 4)}, {"first.bias": torch.full((5,), torch.nan)}):
        with pytest.raises(ValueError, match="values"):
            apply(network, InsertPlan("after:1", "residual_linear", {"width": 5}, values=wrong))
