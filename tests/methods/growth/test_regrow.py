"""Connections are exchanged exactly as the papers say, and their number stays."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coppice.methods.adaptation.adapt import Adaptation, adapt
from coppice.methods.adaptation.candidates import Scope
from coppice.methods.apply import apply
from coppice.methods.catalog import build
from coppice.methods.measures.connections import exchange
from coppice.methods.networks.dag import dag
from coppice.methods.plan import MaskPlan
from coppice.methods.selection import All, GlobalRanking, Limit
from coppice.methods.selection.amount import Amount
from coppice.methods.surgery.followers import OptimizerFollower
from coppice.methods.surgery.masks import apply_masks, mask_gradients
from coppice.testing.examples import context, mixed
from coppice.testing.method import GrowthContract, PruningContract
from tests.methods.pruning.test_movement import moved

REGROWING = ("set", "rigl", "snfs", "nest_connections")


def sparse(method, dtype=torch.float32, seed=0, fraction=0.5):
    """Every tensor half masked, and the method's companion after three training steps."""
    ctx = mixed(dtype, seed)
    adapt(ctx, Adaptation(build("prune", "magnitude_weights", {}), All(), fraction))
    companion = method.companion(ctx.network)
    return ctx if companion is None else moved(replace(ctx, companion=companion))


@pytest.mark.parametrize("arguments", [{"replace": False}, {"replace": True}], ids=str, scope="class")
@pytest.mark.parametrize("name", REGROWING, scope="class")
class TestContract(GrowthContract):
    measures = True

    @pytest.fixture
    def method(self, name, arguments):
        self.made = build("grow", name, arguments)
        return self.made

    def context(self, dtype=torch.float32, seed=0):
        return sparse(self.made, dtype, seed)

    def test_the_optimizer_follows_and_trains_everything(self, method):
        """As a trial trains: masked weights are zero after every step; most new connections move (others have no input)."""
        ctx = self.context()
        optimizer = torch.optim.AdamW(ctx.network.module.parameters(), lr=0.01)
        self.train(ctx, optimizer)
        old = {n: m.clone() for n, m in ctx.network.masks.items()}
        assert self.act(ctx, method, followers=[OptimizerFollower(optimizer, ctx.network.module)]).events
        before = {n: p.detach().clone() for n, p in ctx.network.module.named_parameters()}
        self.train(ctx, optimizer)
        for name, p in ctx.network.module.named_parameters():
            mask = ctx.network.masks.get(name, torch.ones_like(p, dtype=torch.bool))
            assert torch.isfinite(p).all() and (p != before[name])[mask].float().mean() > 0.9, name
            born = mask & ~old.get(name, mask)
            assert not born.any() or (p[born] != before[name][born]).float().mean() > 0.5, name

    def train(self, ctx, optimizer):
        inputs, targets = next(iter(ctx.batches(1)))
        for _ in range(2):
            optimizer.zero_grad()
            F.cross_entropy(ctx.network.module(inputs), targets).backward()
            mask_gradients(ctx.network)
            optimizer.step()
            apply_masks(ctx.network)

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
    def test_the_function_changes_only_as_declared(self, method, dtype, tolerance):
        if not method.replace:
            super().test_the_function_changes_only_as_declared(method, dtype, tolerance)
        else:
            self.keeps_the_number(method, self.context(dtype))

    def keeps_the_number(self, method, ctx):
        before = {n: m.clone() for n, m in ctx.network.masks.items()}
        events = self.act(ctx, method).events
        assert len(events) == len(before)
        for event in events:
            assert event.kind == "mask" and event.parameters_after == event.parameters_before
            mask, old = ctx.network.masks[event.element], before[event.element]
            assert mask.sum() == old.sum() and not torch.equal(mask, old)
            assert not ctx.network.module.get_parameter(event.element)[~mask].any()


class TestGraNet(PruningContract):
    @pytest.fixture(params=[{}, {"regrow": 0.2}], ids=str)
    def method(self, request):
        return build("prune", "granet", request.param)


def linear(weight, x, slope):
    """y = W x with the loss slope . y, so that dL/dW = slope x^T; float64."""
    module = nn.Linear(len(x), len(slope), bias=False).double()
    with torch.no_grad():
        module.weight.copy_(torch.tensor(weight, dtype=torch.float64))
    inputs, targets = torch.tensor([x], dtype=torch.float64), torch.tensor([slope], dtype=torch.float64)
    ctx = context(module, inputs, targets, loss=lambda y, t: (y * t).sum())
    apply(ctx.network, MaskPlan({"weight": module.weight.detach() != 0}))
    return ctx


WEIGHT = [[0.9, 0.0, 0.0, 0.1], [0.0, -0.8, 0.2, 0.0]]
GRADIENT = [[1.0, 2.0, 3.0, 4.0], [-0.5, -1.0, -1.5, -2.0]]


class TestRigL:
    @pytest.mark.parametrize("make", [
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), lambda p: torch.optim.Adam(p, 0.1)], ids=["sgd", "adam"])  # fmt: skip
    def test_the_mask_update_by_hand(self, make):
        """Half of four connections: 0.1 and 0.2 are dropped; of all that is not kept, gradients 4 (just dropped) and 3 grow."""
        ctx = linear(WEIGHT, [1.0, 2.0, 3.0, 4.0], [1.0, -0.5])
        weight = ctx.network.module.weight
        optimizer = make([weight])
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
        for key in ("momentum_buffer", "exp_avg", "exp_avg_sq"):
            if key in optimizer.state[weight]:
                optimizer.state[weight][key] = torch.arange(1.0, 9.0, dtype=torch.float64).view(2, 4)
        follower = [OptimizerFollower(optimizer, ctx.network.module)]
        (event,) = adapt(ctx, Adaptation(build("grow", "rigl", {}), All(), 0.5), follower).events
        assert ctx.network.masks["weight"].tolist() == [[True, False, True, True], [False, True, False, False]]
        assert weight.tolist() == [[0.9, 0.0, 0.0, 0.1], [0.0, -0.8, 0.0, 0.0]]
        assert event.parameters_before == event.parameters_after == 4
        state = optimizer.state[weight]
        first = state.get("momentum_buffer", state.get("exp_avg"))
        assert first.tolist() == [[1, 2, 0, 4], [5, 6, 7, 8]]
        if "exp_avg_sq" in state:
            assert state["exp_avg_sq"].tolist() == [[1, 2, (1 + 4 + 6) / 3, 4], [5, 6, 7, 8]]

    def test_only_growing_by_hand(self):
        ctx = linear(WEIGHT, [1.0, 2.0, 3.0, 4.0], [1.0, -0.5])
        method = build("grow", "rigl", {"replace": False})
        element = ctx.network.element("weight")
        measurement = method.measure(ctx, [element], {"weight": 4})
        assert measurement.scores["weight"].tolist() == [3.0, 2.0, 2.0, 0.5]
        assert measurement.data["weight"]["indices"].tolist() == [2, 1, 7, 4]
        assert measurement.data["weight"]["value"].tolist() == GRADIENT
        adapt(ctx, Adaptation(method, All(), 0.5))
        assert ctx.network.masks["weight"].tolist() == [[True, True, True, True], [False, True, True, False]]
        assert ctx.network.module.weight.tolist() == WEIGHT

    def test_amounts_are_of_the_active_weights_and_end_at_what_is_masked(self):
        for fraction, changed in ((0.25, 1), (Amount(2), 2), (Amount(100), 4)):
            ctx = linear([[5.0, 6.0, 7.0, 8.0, 0.0, 0.0, 0.0, 0.0]], [1.0] * 4 + [2.0] * 4, [1.0])
            adapt(ctx, Adaptation(build("grow", "rigl", {}), All(), fraction))
            assert ctx.network.masks["weight"].tolist() == [[False] * changed + [True] * 4 + [False] * (4 - changed)]

    @pytest.mark.parametrize("limit", [Limit(parameters=4.0), Limit(flops=16.0)])
    def test_a_network_at_its_limit_is_rewired_but_does_not_grow(self, limit):
        for arguments, acts in (({}, True), ({"replace": False}, False)):
            ctx = linear(WEIGHT, [1.0, 2.0, 3.0, 4.0], [1.0, -0.5])
            events = adapt(ctx, Adaptation(build("grow", "rigl", arguments), All(), 0.5, Scope(limit=limit))).events
            assert bool(events) == acts and ctx.network.num_parameters() == 4

    def test_globally_the_largest_gradients_decide_where(self):
        ctx = sparse(build("grow", "rigl", {}))
        with torch.no_grad():
            ctx.network.module.fc2.weight.mul_(1e3)
        method = build("grow", "rigl", {"replace": False})
        names = [e.name for e in ctx.network.elements() if e.level == "weight"]
        elements = [ctx.network.element(n) for n in names]
        scores = method.measure(ctx, elements, dict.fromkeys(names, 1)).scores
        masked = {n: int((~m).sum()) for n, m in ctx.network.masks.items()}
        adapt(ctx, Adaptation(method, GlobalRanking(), 0.2))
        grown = {n: masked[n] - int((~ctx.network.masks[n]).sum()) for n in names}
        threshold = min(float(scores[n][k - 1]) for n, k in grown.items() if k)
        assert all(k == int((scores[n] >= threshold).sum()) for n, k in grown.items()) and len(set(grown.values())) > 2

    def test_finds_the_inputs_that_matter(self):
        """Four of forty inputs carry the target, and four random connections exist: RigL finds all four inputs."""
        torch.manual_seed(0)
        x = torch.randn(256, 40)
        y = x[:, 30:34].sum(1, keepdim=True)
        module = nn.Linear(40, 1)
        ctx = context(module, x, y, loss=F.mse_loss)
        mask = torch.zeros(1, 40, dtype=torch.bool)
        mask[0, :4] = True
        apply(ctx.network, MaskPlan({"weight": mask}))
        optimizer = torch.optim.SGD(module.parameters(), 0.05, momentum=0.9)
        losses, connected = [], []
        for _ in range(8):
            for _ in range(10):
                optimizer.zero_grad()
                F.mse_loss(module(x), y).backward()
                mask_gradients(ctx.network)
                optimizer.step()
                apply_masks(ctx.network)
            losses.append(float(F.mse_loss(module(x), y).detach()))
            connected.append(ctx.network.masks["weight"].nonzero()[:, 1].tolist())
            adapt(ctx, Adaptation(build("grow", "rigl", {}), All(), 0.5), [OptimizerFollower(optimizer, module)])
        best = losses.index(min(losses))
        assert losses[0] > 2 and losses[best] < 0.1 and connected[best] == [30, 31, 32, 33]


def test_an_acyclic_network_stays_so_and_what_it_is_given_can_exist():
    torch.manual_seed(0)
    ctx = context(dag(4, 3, (8, 8), skip=True), torch.randn(16, 4), torch.randint(3, (16,)))
    adapt(ctx, Adaptation(build("prune", "rigl_drop", {}), All(), 0.4))
    before = {n: m.clone() for n, m in ctx.network.masks.items()}
    for _ in range(4):
        events = adapt(ctx, Adaptation(build("grow", "set", {}), All(), 0.2)).events
        assert len(events) == 2 and not torch.equal(ctx.network.masks["weight"], before["weight"])
        assert all(e.parameters_before - 3 <= e.parameters_after <= e.parameters_before for e in events)
        assert torch.isfinite(ctx.network.module(torch.randn(5, 4))).all()
    for kind, name in (("grow", "rigl"), ("grow", "nest_connections"), ("prune", "granet")):
        result = adapt(ctx, Adaptation(build(kind, name, {}), All(), 0.2))
        assert not result.events and "no gradient to connections that do not exist; use set" in result.skipped[0], name


def test_exchange_keeps_exactly_the_largest():
    generator = torch.Generator().manual_seed(0)
    for count in (0, 3, 20):
        active = torch.rand(6, 10, generator=generator) < 0.5
        drop, grow = torch.rand(2, 6, 10, generator=generator)
        mask = exchange(active, drop, grow, min(count, int(active.sum())))
        order = sorted(active.nonzero().tolist(), key=lambda ij: -float(drop[tuple(ij)]))
        kept = {tuple(ij) for ij in order[: len(order) - min(count, len(order))]}
        rest = sorted(({(i, j) for i in range(6) for j in range(10)} - kept), key=lambda ij: -float(grow[ij]))
        assert {tuple(ij) for ij in mask.nonzero().tolist()} == kept | set(rest[: min(count, len(order))])


def test_set_grows_uniformly_among_everything_that_is_not_kept():
    counts = torch.zeros(1, 12)
    for seed in range(600):
        ctx = linear([[3.0, 2.0, 0.1] + [0.0] * 9], [1.0] * 12, [1.0])
        ctx.generator.manual_seed(seed)
        adapt(ctx, Adaptation(build("grow", "set", {}), All(), Amount(1)))
        counts += ctx.network.masks["weight"]
    assert counts[0, :2].tolist() == [600, 600]
    assert (counts[0, 2:] - 60).abs().max() < 5 * 60**0.5  # each of ten with probability 1/10


@pytest.mark.parametrize("name", REGROWING)
def test_a_dense_tensor_has_nothing_to_give_back(name):
    ctx = mixed()
    result = adapt(ctx, Adaptation(build("grow", name, {}), All(), 0.5))
    assert not result.events and "no connection of stem.weight is masked; prune weights first" in result.skipped[0]
