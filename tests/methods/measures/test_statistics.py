"""What is measured is right, and measuring leaves no trace."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from coppice.methods.measures.statistics import NonFiniteStatistics, channel_means, mean_loss, observe, require_finite
from coppice.testing.examples import context, everything, mixed, same


def test_inputs_and_gradients_are_those_of_autograd_despite_in_place_activations():
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)).double()
    x, y = torch.randn(5, 4, dtype=torch.float64), torch.randint(3, (5,))
    ctx = context(module, x, y)
    found = {}
    samples = observe(ctx, ["0", "2"], lambda seen, inputs: found.update(seen), 1)
    F.cross_entropy(module(x), y, reduction="sum").backward()
    assert samples == 5
    for name, layer in (("0", module[0]), ("2", module[2])):
        assert torch.allclose(found[name].gradient.T @ found[name].input, layer.weight.grad)
        assert torch.allclose(found[name].gradient.sum(0), layer.bias.grad)
    assert torch.allclose(found["0"].output, module[0](x))


def test_nothing_is_left_behind_even_after_an_error():
    ctx = mixed()
    module = ctx.network.module
    module.block.eval()
    before, rng = everything(module), torch.get_rng_state()

    def fail(seen, inputs):
        raise KeyError("stop")

    for use in (lambda seen, inputs: None, fail):
        try:
            observe(ctx, ["conv", "fc1", "block"], use, 2)
        except KeyError:
            assert use is fail
        assert same(before, everything(module)) and torch.equal(rng, torch.get_rng_state())
        assert all(p.grad is None for p in module.parameters())
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())
        assert module.training and not module.block.training and not module.block.norm1.training


def test_channel_means_and_mean_loss():
    ctx = mixed(torch.float64)
    module = ctx.network.module
    found = channel_means(ctx, ["conv", "fc1"], 2)
    module.eval()
    x, y = next(iter(ctx.batches(1)))
    with torch.no_grad():
        hidden = module.block(module.stem_act(module.stem_norm(module.stem(x))))
        assert torch.allclose(found["conv"], hidden.mean((0, 2, 3)))
        assert torch.allclose(found["fc1"], F.max_pool2d(module.act(module.conv(hidden)), 2).flatten(1).mean(0))
        assert mean_loss(ctx, 3).item() == pytest.approx(F.cross_entropy(module(x), y).item())


def test_what_is_not_finite_is_a_clear_error():
    with pytest.raises(NonFiniteStatistics, match="the loss must be finite"):
        require_finite("the loss", torch.tensor([1.0, float("nan")]))


def test_a_layer_shows_its_own_output_not_that_of_what_was_put_behind_it():
    from coppice.methods.apply import apply
    from coppice.methods.plan import InsertPlan

    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.last = nn.Linear(4, 5), nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.tanh(self.layer(x)))

    torch.manual_seed(0)
    ctx = context(Held(), torch.randn(6, 4), torch.randint(3, (6,)))
    apply(ctx.network, InsertPlan("after:layer", "residual_linear"))
    layer = ctx.network.module.layer
    nn.init.ones_(layer.grown_0.last.weight)
    seen = []
    observe(ctx, ["layer"], lambda found, _: seen.append(found["layer"]), 1)
    assert torch.allclose(seen[0].output, nn.functional.linear(seen[0].input, layer.weight, layer.bias))
