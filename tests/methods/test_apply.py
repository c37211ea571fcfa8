import copy
import json

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coppice.methods.apply import apply
from coppice.methods.network import Network
from coppice.methods.plan import GrowPlan, InsertPlan, MaskPlan, PrunePlan, RemovePlan
from coppice.methods.surgery.check import PlanError
from coppice.methods.surgery.followers import EmaFollower, OptimizerFollower
from coppice.methods.surgery.masks import apply_masks
from coppice.methods.surgery.shrink import Shrinking, advance
from tests.support.zoo import ZOO


def build(name: str, dtype: torch.dtype = torch.float32) -> Network:
    """A network of the zoo whose norms do something."""
    torch.manual_seed(0)
    factory, inputs = ZOO[name]
    module = factory().to(dtype)
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.5, 1.5)
        if hasattr(m, "eps"):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, 0, 0.1)
    example = tuple(t.to(dtype) if t.is_floating_point() else t for t in inputs())
    return Network(module, f"tests.support.zoo:{name}", {}, example)


def unit_elements(network: Network):
    return [e for e in network.elements() if e.level in ("channel", "head", "group") and e.permissible]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", ZOO)
def test_growing_keeps_the_function(name, dtype):
    origin = build(name, dtype)
    for element in unit_elements(origin):
        network = Network(copy.deepcopy(origin.module), origin.factory, {}, origin.example_inputs)
        before = {n: (id(p), p.requires_grad) for n, p in network.module.named_parameters()}
        event = apply(network, GrowPlan(element.name, 2 * element.quantum), certify=network.example_inputs)
        assert network.element(element.name).size == element.size + 2 * element.quantum
        assert {n: (id(p), p.requires_grad) for n, p in network.module.named_parameters()} == before
        assert event.parameters_after > event.parameters_before
        if element.grow != "inexact":
            assert event.function_change <= (1e-5 if dtype is torch.float32 else 1e-10) * event.function_scale, element.name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", ZOO)
def test_shrinking_to_zero_and_removing_keeps_the_function(name, dtype):
    origin = build(name, dtype)
    for element in unit_elements(origin):
        if element.size - element.quantum < element.minimum:
            continue
        network = Network(copy.deepcopy(origin.module), origin.factory, {}, origin.example_inputs)
        units = tuple(range(element.quantum))
        shrinking = Shrinking(element.name, units, 3)
        while shrinking.done < shrinking.steps:
            shrinking = advance(network, shrinking)
        event = apply(network, PrunePlan(element.name, units), certify=network.example_inputs)
        assert event.size_after == element.size - element.quantum
        assert event.parameters_after == sum(p.numel() for p in network.module.parameters()) < event.parameters_before
        if element.shrink != "inexact" or element.compensation == ("attention_scale",):
            assert event.function_change <= (1e-5 if dtype is torch.float32 else 1e-10) * event.function_scale, element.name


@pytest.mark.parametrize("name", ZOO)
def test_what_grew_goes_on_training(name):
    network = build(name)
    for element in unit_elements(network):
        apply(network, GrowPlan(element.name, element.quantum))
    optimizer = torch.optim.SGD(network.module.parameters(), 0.01)
    for _ in range(3):
        optimizer.zero_grad()
        out = network.module(*network.example_inputs)
        (out["logits"] if isinstance(out, dict) else out).pow(2).mean().backward()
        optimizer.step()
    dead = [n for n, p in network.module.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()]
    assert not dead


def state(network: Network, optimizer: torch.optim.Optimizer, ema: nn.Module):
    """Everything that a rollback must bring back, as values."""
    def of(module: nn.Module):
        plain = (int, float, bool, tuple, str)
        return (
            {n: (id(p), p.detach().clone(), p.requires_grad) for n, p in module.named_parameters(remove_duplicate=False)},
            {n: b.clone() for n, b in module.named_buffers()},
            {n: (id(m), {k: v for k, v in vars(m).items() if isinstance(v, plain)}, len(m._forward_hooks))
             for n, m in module.named_modules()},
        )

    moments = [{k: copy.deepcopy(v) for k, v in optimizer.state.get(p, {}).items()} for p in network.module.parameters()]
    groups = [[id(p) for p in g["params"]] for g in optimizer.param_groups]
    record = copy.deepcopy((network.edits, network.attributes, network.masks, network.lineage))
    return of(network.module), of(ema)[1:2], {n: p.detach().clone() for n, p in ema.named_parameters()}, moments, groups, record


def equal(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def trained(name: str):
    network = build(name)
    optimizer = torch.optim.AdamW(network.module.parameters(), 1e-3)
    network.module(*network.example_inputs).pow(2).mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    ema = copy.deepcopy(network.module)
    return network, optimizer, ema, [OptimizerFollower(optimizer, network.module), EmaFollower(ema, network.module)]


PLANS = {
    "grow": lambda n: GrowPlan("layers.0.conv1.weight:0", 2),
    "grow-residual": lambda n: GrowPlan(next(e.name for e in unit_elements(n)), 2),
    "prune": lambda n: PrunePlan("layers.0.conv1.weight:0", (1, 3)),
    "insert": lambda n: InsertPlan("after:layers.0", "residual_conv"),
    "remove": lambda n: RemovePlan("layers.1"),
    "mask": lambda n: MaskPlan({"layers.0.conv1.weight": torch.rand(8, 8, 3, 3) > 0.5}),
}


@pytest.mark.parametrize("kind", PLANS)
def test_a_rejected_change_is_rolled_back_bit_by_bit(kind):
    network, optimizer, ema, followers = trained("resnet")
    before = state(network, optimizer, ema)
    seen = []

    def train_on_and_reject(event) -> bool:
        seen.append(state(network, optimizer, ema))
        network.module(*network.example_inputs).pow(2).mean().backward()
        optimizer.step()
        return False

    event = apply(network, PLANS[kind](network), followers, certify=network.example_inputs, accept=train_on_and_reject)
    assert not event.accepted and event.reason
    assert not equal(before, seen[0])
    assert equal(before, state(network, optimizer, ema))
    assert apply(network, PLANS[kind](network), followers).accepted


def test_an_error_on_the_way_is_rolled_back():
    network, optimizer, ema, followers = trained("vit_hand")
    before = state(network, optimizer, ema)

    def fail(event) -> bool:
        raise OSError("full")

    for plan in (GrowPlan("patch.weight:0", 4), GrowPlan("blocks.0.attn.qkv.weight:0/2", 1)):
        with pytest.raises(OSError, match="full"):
            apply(network, plan, followers, accept=fail)
        assert equal(before, state(network, optimizer, ema))


def test_an_untrained_parameter_is_caught_and_rolled_back():
    network, optimizer, ema, _ = trained("resnet")
    optimizer.param_groups[0]["params"].pop()
    before = state(network, optimizer, ema)
    with pytest.raises(RuntimeError, match=r"fc\.bias"):
        apply(network, GrowPlan("layers.0.conv1.weight:0", 1), [OptimizerFollower(optimizer, network.module)])
    assert equal(before, state(network, optimizer, ema))


def test_the_event_is_json_and_in_the_lineage():
    network, _, _, followers = trained("resnet")
    network.module.train()
    rng = torch.get_rng_state()
    event = apply(network, PrunePlan("layers.0.conv1.weight:0", (1, 3), predicted_loss=0.5), followers, network.example_inputs)
    assert (event.kind, event.level, event.count, event.size_before, event.size_after) == ("prune", "channel", 2, 8, 6)
    assert event.units == (1, 3) and event.predicted == 0.5 and event.accepted and event.function_change > 0
    assert event.parameters_before - event.parameters_after == 2 * (8 * 9 + 2 + 8 * 9)
    assert json.loads(json.dumps(network.lineage, allow_nan=False)) == [event.to_json()]
    assert all(m.training for m in network.module.modules()) and torch.equal(rng, torch.get_rng_state())


def test_the_average_follows_every_change():
    network, _, ema, followers = trained("vit_sep")
    for name in [e.name for e in unit_elements(network)]:
        apply(network, GrowPlan(name, network.element(name).quantum), followers)
        network.module.eval(), ema.eval()
        assert [p.shape for p in ema.parameters()] == [p.shape for p in network.module.parameters()]
        torch.testing.assert_close(ema(*network.example_inputs), network.module(*network.example_inputs))


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (GrowPlan("nothing", 1), "must exist"),
        (GrowPlan("fc.weight:0", 1), "output of the network"),
        (GrowPlan("layers.0.conv1.weight:0", 0), "positive multiple"),
        (GrowPlan("layers.0.conv1.weight:0", 2**31), "at most"),
        (GrowPlan("layers.0.conv1.weight:0", 2, values={"layers.0.conv1.weight:0": torch.zeros(1, 8, 3, 3)}), "shape"),
        (GrowPlan("layers.0.conv1.weight:0", 1, values={"layers.0.conv1.weight:0": torch.ones(1, 8, 3, 3) / 0}), "finite"),
        (GrowPlan("layers.0.conv1.weight:0", 1, values={"fc.weight:0": torch.zeros(1)}), "values may name"),
        (GrowPlan("layers.0.conv1.weight:0", 2, sources=(0, 8)), "sources"),
        (GrowPlan("layers.0.conv1.weight:0", 1, scale=float("inf")), "scale"),
        (PrunePlan("layers.0.conv1.weight:0", ()), "at least one"),
        (PrunePlan("layers.0.conv1.weight:0", (1, 1)), "different"),
        (PrunePlan("layers.0.conv1.weight:0", (8,)), "0..7"),
        (PrunePlan("layers.0.conv1.weight:0", tuple(range(8))), "keep at least"),
        (PrunePlan("layers.0.conv1.weight:0", (1,), "absorb", constants=(0.1,)), "bias"),
        (PrunePlan("layers.0.conv1.weight:0", (1,), "merge", merge={1: (1, 0.5)}), "kept"),
        (RemovePlan("conv1.weight:0"), "layer or block"),
        (MaskPlan({"fc.weight": torch.ones(10, 32)}), "bool"),
        (MaskPlan({"nothing": torch.ones(1, dtype=torch.bool)}), "name"),
    ],
)
def test_a_plan_that_does_not_fit_changes_nothing(plan, words):
    network, optimizer, ema, followers = trained("resnet")
    before = state(network, optimizer, ema)
    with pytest.raises(PlanError, match=words):
        apply(network, plan, followers)
    assert equal(before, state(network, optimizer, ema))


def test_masks_follow():
    network, _, _, followers = trained("resnet")
    mask = torch.rand(8, 8, 3, 3) > 0.5
    event = apply(network, MaskPlan({"layers.0.conv1.weight": mask}), followers)
    assert event.parameters_before - event.parameters_after == int((~mask).sum())
    apply(network, GrowPlan("layers.0.conv1.weight:0", 1), followers)
    apply(network, PrunePlan("layers.0.conv1.weight:0", (2,)), followers)
    kept = [0, 1, 3, 4, 5, 6, 7]
    now = network.masks["layers.0.conv1.weight"]
    assert torch.equal(now[:7], mask[kept]) and now[7].all()
    weight = network.module.get_parameter("layers.0.conv1.weight")
    assert not weight[~now].any() and F.relu(weight).any()


class _Repeats(nn.Module):
    """`steps` happens to equal the hidden width, and has nothing to do with it."""

    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        self.steps = 8
        self.first, self.last = nn.Linear(4, hidden), nn.Linear(hidden, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        for _ in range(self.steps):
            y = torch.tanh(y)
        return self.last(y)


def test_an_attribute_that_only_looks_like_a_size_is_not_changed_on_a_guess() -> None:
    """Growing `first` must not make the forward take more steps in silence."""
    network = Network(_Repeats(), "x:y", {}, (torch.randn(3, 4),))
    (element,) = [e for e in network.elements() if e.name == "first.weight:0"]
    assert element.doubt is None and not element.attributes
    event = apply(network, GrowPlan(element.name, 1), certify=network.example_inputs)
    assert network.module.steps == 8 and network.module.first.out_features == 9
    assert event.function_change is not None and event.function_change < 1e-6


def test_adjustments_are_added_before_units_come_in_the_network_and_its_average():
    network, _, ema, followers = trained("resnet")
    name = "layers.0.conv1.weight"
    before, averaged = network.module.get_parameter(name).detach().clone(), ema.get_parameter(name).detach().clone()
    delta = torch.randn(before.shape)
    adjust = {name: delta, "layers.0.bn1.running_mean": torch.ones(len(before))}
    apply(network, GrowPlan(f"{name}:0", 2, adjust=adjust), followers)
    size = len(before)
    assert torch.equal(network.module.get_parameter(name)[:size], before + delta)
    assert torch.equal(ema.get_parameter(name)[:size], averaged + delta)


@pytest.mark.parametrize(("adjust", "message"), [
    ({"no.such": torch.ones(1)}, "no.such"), ({"layers.0.conv1.weight": torch.ones(1)}, "must have shape"),
    ({"layers.0.conv1.weight": None}, "must be finite"), ({"layers.0.bn1.num_batches_tracked": torch.ones(())}, "floating-point"),
])  # fmt: skip
def test_adjustments_that_do_not_fit_are_refused(adjust, message):
    network, *_, followers = trained("resnet")
    adjust = {n: network.module.get_parameter(n) * float("nan") if v is None else v for n, v in adjust.items()}
    before = copy.deepcopy(network.module.state_dict())
    with pytest.raises(PlanError, match=message):
        apply(network, GrowPlan("layers.0.conv1.weight:0", 2, adjust=adjust), followers)
    assert all(torch.equal(before[n], t) for n, t in network.module.state_dict().items())


def test_a_change_inside_autocast_drops_the_casts_of_old_weights():
    network, *_, followers = trained("resnet")
    with torch.autocast("cpu", torch.bfloat16):
        network.module(*network.example_inputs)
        apply(network, GrowPlan("layers.0.conv1.weight:0", 2), followers, network.example_inputs)
        network.module(*network.example_inputs)


def test_noisy_copies_of_masked_weights_keep_the_function():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    network = Network(module, "tests:module", {}, (torch.randn(5, 4, dtype=torch.float64),))
    apply(network, MaskPlan({"2.weight": torch.rand(3, 6) > 0.5}))
    before = module(*network.example_inputs)
    apply(network, GrowPlan("0.weight:0", 6, sources=tuple(range(6)), noise=0.5))
    apply_masks(network)
    assert torch.allclose(module(*network.example_inputs), before, rtol=0, atol=1e-12)
