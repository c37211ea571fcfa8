"""Networks of single connections: what they compute, how they change, how they are stored."""

import copy
import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.apply import apply
from coppice.methods.catalog import build as build_method
from coppice.methods.graph.connectivity import could_exist
from coppice.methods.method import Context
from coppice.methods.network import Network
from coppice.methods.networks.catalog import arguments_for, network_reference
from coppice.methods.networks.dag import DAG, dag
from coppice.methods.networks.from_mlp import from_mlp
from coppice.methods.networks.mlp import mlp
from coppice.methods.plan import GrowPlan, MaskPlan, PrunePlan
from coppice.methods.record.architecture import build, rebuild, record, tensors_of
from coppice.methods.selection import All
from coppice.methods.surgery.followers import EmaFollower, OptimizerFollower
from coppice.methods.surgery.masks import apply_masks

FACTORY = "coppice.methods.networks.dag:dag"


def random_dag(inputs: int, outputs: int, neurons: int, seed: int, density: float = 0.4, activation: str = "tanh") -> Network:
    """Any order of the neurons, any connections along it, in float64."""
    generator = torch.Generator().manual_seed(seed)
    arguments = {"in_features": inputs, "out_features": outputs, "hidden": [neurons], "activation": activation}
    module = dag(**arguments).double()
    place = torch.randperm(neurons, generator=generator)
    before = place[None, :] < place[:, None]
    chosen = torch.rand(neurons, inputs + neurons, generator=generator) < density
    allowed = torch.cat([torch.ones(neurons, inputs, dtype=torch.bool), before], 1)
    out = torch.rand(outputs, inputs + neurons, generator=generator) < density
    for p in module.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64)
    masks = {"weight": chosen & allowed, "out.weight": out}
    return Network(module, FACTORY, arguments, (torch.randn(4, inputs, generator=generator, dtype=torch.float64),), masks=masks)


def naive(module: DAG, x: Tensor) -> Tensor:
    """Neuron by neuron, connection by connection."""
    act = {"tanh": torch.tanh, "relu": F.relu, "identity": lambda v: v}[module.activation]
    found: dict[int, Tensor] = {}

    def source(j: int) -> Tensor:
        return x[:, j] if j < x.shape[1] else neuron(j - x.shape[1])

    def total(weights: Tensor, exist: Tensor, bias: Tensor) -> Tensor:
        return sum((weights[j] * source(j) for j in exist.nonzero().flatten().tolist()), bias.expand(len(x)))

    def neuron(i: int) -> Tensor:
        if i not in found:
            found[i] = act(total(module.weight[i], module.connections[i], module.bias[i]))
        return found[i]

    outputs = range(len(module.out.weight))
    return torch.stack([total(module.out.weight[o], module.out.connections[o], module.out.bias[o]) for o in outputs], 1)


def depth(module: DAG) -> int:
    """Neurons on the longest path."""
    feeds, known = module.connections[:, module.num_inputs :], {}

    def at(i: int) -> int:
        if i not in known:
            known[i] = 1 + max((at(j) for j in feeds[i].nonzero().flatten().tolist()), default=0)
        return known[i]

    return max(at(i) for i in range(len(feeds)))


@pytest.mark.parametrize("activation", ["tanh", "relu", "identity"])
@pytest.mark.parametrize("seed", range(6))
def test_equal_to_neuron_by_neuron_evaluation(seed, activation):
    network = random_dag(3, 2, [1, 2, 7, 12, 12, 20][seed], seed, [0.9, 0.5, 0.5, 0.2, 0.9, 0.3][seed], activation)
    module, (x,) = network.module, network.example_inputs
    assert torch.allclose(module(x), naive(module, x), rtol=1e-12, atol=1e-12)
    assert len(module.levels()) == depth(module)
    weights = torch.randn(4, 2, dtype=torch.float64)
    parameters = [x.requires_grad_(), *module.parameters()]
    ours = torch.autograd.grad((module(x) * weights).sum(), parameters, allow_unused=True)
    theirs = torch.autograd.grad((naive(module, x) * weights).sum(), parameters, allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        assert a is not None and torch.allclose(a, torch.zeros_like(a) if b is None else b, rtol=1e-10, atol=1e-12)
    assert not ours[1][~module.connections].any() and not module.weight[~module.connections].any()


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
def test_an_mlp_becomes_a_dag_of_the_same_function(activation):
    module = mlp(5, 3, (6, 4, 7), activation).double()
    x = torch.randn(9, 5, dtype=torch.float64)
    sparse = Network(module, "coppice.methods.networks.mlp:mlp", {}, (x,))
    apply(sparse, MaskPlan({"hidden.2.weight": torch.rand(4, 6) > 0.3}))
    made = from_mlp(sparse)
    assert torch.allclose(made.module(x), module(x), rtol=1e-12, atol=1e-12)
    assert made.num_parameters() == sparse.num_parameters()
    assert len(made.module.levels()) == 3
    again = rebuild(json.loads(json.dumps(record(made))), tensors_of(made))
    assert torch.equal(again.module(x), made.module(x)) and record(again) == record(made)
    for wrong in (mlp(3, 2, (4,), batch_norm=True), nn.Linear(3, 2)):
        with pytest.raises(ValueError, match="without batch norm"):
            from_mlp(Network(wrong, "x:y", {}, (torch.randn(2, 3),)))


def test_factory_and_catalog():
    assert network_reference("dag") == FACTORY
    module = build(FACTORY, arguments_for("dag", (1, 4, 4), 3, {"hidden": [5, 2]}))
    network = Network(module, FACTORY, {}, (torch.randn(2, 1, 4, 4),))
    assert network.num_parameters() == 16 * 5 + 5 + 5 * 2 + 2 + 2 * 3 + 3
    assert module(*network.example_inputs).shape == (2, 3) and len(module.levels()) == 2
    full = Network(dag(4, 3, (5, 2), skip=True), FACTORY, {}, (torch.randn(2, 4),))
    assert full.num_parameters() == 4 * 5 + 5 + 9 * 2 + 2 + 11 * 3 + 3
    with pytest.raises(ValueError, match="at least one neuron"):
        dag(3, 2, ())
    with pytest.raises(KeyError, match="known are"):
        dag(3, 2, (4,), "tahn")


def trained(network: Network, steps: int = 3) -> tuple[Context, torch.optim.Optimizer]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(16, network.example_inputs[0].shape[1], generator=generator, dtype=torch.float64)
    y = torch.randn(16, len(network.module.out.weight), generator=generator, dtype=torch.float64)
    optimizer = torch.optim.AdamW(network.module.parameters(), lr=0.01)
    train(network, optimizer, x, y, steps)
    return Context(network, lambda count: [(x, y)] * count, F.mse_loss, generator), optimizer


def train(network: Network, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        F.mse_loss(network.module(x), y).backward()
        optimizer.step()


def test_connections_go_and_come_back_through_adapt():
    network = random_dag(3, 2, 10, 5, 0.6)
    context, optimizer = trained(network)
    followers = [OptimizerFollower(optimizer, network.module)]
    before, deep = network.num_parameters(), len(network.module.levels())
    result = adapt(context, Adaptation(build_method("prune", "magnitude_weights", {}), All(), 0.5), followers)
    assert {e.element for e in result.events} == {"weight", "out.weight"}
    module = network.module
    assert network.num_parameters() < 0.7 * before and len(module.levels()) == depth(module) <= deep
    assert torch.equal(module.connections, network.masks["weight"]) and not module.weight[~module.connections].any()
    inputs, targets = next(iter(context.batches(1)))
    train(network, optimizer, inputs, targets, 3)
    assert not module.weight.grad[~module.connections].any() and not module.out.weight.grad[~module.out.connections].any()
    assert torch.allclose(module(inputs), naive(module, inputs), rtol=1e-12), "momentum may move what does not exist"
    apply_masks(network)
    possible = could_exist(module, "weight", network.masks["weight"])
    one = (possible.nonzero()[0]).tolist()
    mask = network.masks["weight"].clone()
    mask[tuple(one)] = True
    apply(
        network,
        MaskPlan(
            {"weight": mask},
            adjust={
                "weight": torch.zeros_like(module.weight).index_put_(
                    tuple(torch.tensor([i]) for i in one), torch.tensor(0.3, dtype=torch.float64)
                )
            },
        ),
        followers,
    )
    assert module.connections[tuple(one)] and float(module.weight[tuple(one)].detach()) == 0.3
    assert torch.allclose(module(inputs), naive(module, inputs), rtol=1e-12)


def test_connections_that_would_close_a_cycle_do_not_come():
    network = random_dag(2, 1, 8, 3, 0.3)
    module = network.module
    possible = could_exist(module, "weight", network.masks["weight"])
    for i, j in (~network.masks["weight"]).nonzero().tolist():
        mask = network.masks["weight"].clone()
        mask[i, j] = True
        apply(network, MaskPlan({"weight": mask}), accept=lambda event: False)
        assert not module.connections[i, j], "rolled back"
        apply(network, MaskPlan({"weight": mask}))
        assert bool(module.connections[i, j]) == bool(possible[i, j])
        module(network.example_inputs[0])
        mask[i, j] = False
        apply(network, MaskPlan({"weight": mask}))
    apply(network, MaskPlan({"weight": torch.ones_like(mask)}))
    assert int(module.connections.sum()) == 8 * 2 + 8 * 7 // 2, "all that is asked: every pair of neurons in one direction"
    assert len(module.levels()) == 8 and network.num_parameters() == 16 + 28 + 8 + int(network.masks["out.weight"].sum()) + 1


@pytest.mark.parametrize(("method", "arguments"), [("random", {}), ("net2wider", {"noise": 0.0}), ("random", {"zero": "none"})])
def test_neurons_grow_exactly_and_optimizer_and_average_follow(method, arguments):
    network = random_dag(3, 2, 7, 2, 0.6)
    context, optimizer = trained(network)
    average = EmaFollower(copy.deepcopy(network.module), network.module)
    followers = [OptimizerFollower(optimizer, network.module), average]
    chosen = build_method("grow", method, arguments)
    (event,) = adapt(context, Adaptation(chosen, All(), 3), followers).events
    module, (inputs, targets) = network.module, next(iter(context.batches(1)))
    assert event.size_after == 10 and event.parameters_after > event.parameters_before
    if chosen.promises():
        assert event.function_change <= 1e-10 * event.function_scale
        assert torch.allclose(average.average(inputs), module(inputs), rtol=1e-10)
    assert torch.allclose(module(inputs), naive(module, inputs), rtol=1e-10)
    assert torch.equal(average.average.connections, module.connections)
    assert torch.equal(network.masks["weight"], module.connections)
    train(network, optimizer, inputs, targets, 2)
    assert bool((module.weight.grad[7:] != 0).any(1).all()) and bool((module.out.weight.grad[:, 10:] != 0).all())


def test_new_neurons_come_first_or_last_by_their_weights():
    network = random_dag(2, 1, 5, 4, 0.5)
    rows, columns = torch.zeros(1, 7, dtype=torch.float64), torch.zeros(5, 1, dtype=torch.float64)
    rows[:, :2] = 1.0
    apply(network, GrowPlan("weight:0", 1, values={"weight:0": rows, "weight:1": columns + 0.5}))
    module = network.module
    assert module.levels()[0].tolist().count(5) == 1 and module.connections[:5, 7].all() and not module.connections[5, 2:].any()
    apply(network, GrowPlan("weight:0", 1, consume="zero"))
    assert module.levels()[-1].tolist() == [6] and module.connections[6, :8].all() and not module.connections[:, 8].any()
    x = network.example_inputs[0]
    assert torch.allclose(module(x), naive(module, x), rtol=1e-12)


def test_neurons_without_use_go_and_constants_are_absorbed():
    network = random_dag(3, 2, 6, 7, 0.7)
    module, (x,) = network.module, network.example_inputs
    masks = {n: m.clone() for n, m in network.masks.items()}
    masks["weight"][2], masks["weight"][:, 3 + 4], masks["out.weight"][:, 3 + 4] = False, False, False
    apply(network, MaskPlan(masks))
    constants = (float(torch.tanh(module.bias[2]).detach()), 0.0)
    event = apply(network, PrunePlan("weight:0", (2, 4), "absorb", constants), certify=x)
    assert event.function_change < 1e-12 and len(module.weight) == 4
    assert torch.allclose(module(x), naive(module, x), rtol=1e-12)


def test_a_changed_network_comes_back_bit_by_bit():
    network = random_dag(3, 2, 6, 8, 0.7)
    apply(network, GrowPlan("weight:0", 2, consume="kaiming"))
    apply(network, PrunePlan("weight:0", (1,)))
    mask = network.masks["weight"].clone()
    mask[2, :2] = False
    apply(network, MaskPlan({"weight": mask}))
    saved, tensors, (x,) = record(network), tensors_of(network), network.example_inputs
    again = rebuild(json.loads(json.dumps(saved)), tensors, example_inputs=(x,))
    assert torch.equal(again.module(x), network.module(x)) and record(again) == saved
    assert [t.tolist() for t in again.module.levels()] == [t.tolist() for t in network.module.levels()]
    assert all(torch.equal(again.masks[n], m) for n, m in network.masks.items())
    assert [e.name for e in again.elements()] == [e.name for e in network.elements()]
    assert math.prod(again.module.weight.shape) == 7 * 10


def test_wrong_masks_and_cycles_are_told():
    module = dag(2, 1, (3,))
    with pytest.raises(ValueError, match=r"must have shape \[3, 5\]"):
        module.settle({"weight": torch.ones(3, 3, dtype=torch.bool)})
    module.connections[:, 2:] = True
    with pytest.raises(ValueError, match="must have no cycle"):
        module(torch.randn(1, 2))
