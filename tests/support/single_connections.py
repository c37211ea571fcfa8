"""Networks of single connections for tests of the methods that act on them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from coppice.methods.method import Context
from coppice.methods.network import Network
from coppice.methods.networks.dag import dag
from coppice.methods.surgery.masks import apply_masks, mask_gradients


def regression(neurons: tuple[int, ...] = (3,), seed: int = 0, dtype: torch.dtype = torch.float64, skip: bool = True) -> Context:
    """A tanh network that has been trained a little on a function that it cannot represent."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        arguments = {"in_features": 2, "out_features": 1, "hidden": list(neurons), "skip": skip}
        module = dag(**arguments).to(dtype)
        x = torch.rand(120, 2, dtype=dtype) * 4 - 2
        y = torch.sin(2 * x[:, :1]) * x[:, 1:]
    network = Network(module, "coppice.methods.networks.dag:dag", arguments, (x[:2],))
    ctx = Context(network, lambda count: [(x, y)] * count, F.mse_loss, torch.Generator().manual_seed(seed))
    train(ctx, 30)
    return ctx


def train(ctx: Context, steps: int, only: str | None = None) -> None:
    """Full-batch L-BFGS; `only` the parameters whose names start so."""
    module = ctx.network.module
    inputs, targets = next(iter(ctx.batches(1)))
    parameters = [p for n, p in module.named_parameters() if only is None or n.startswith(only)]
    optimizer = torch.optim.LBFGS(parameters, max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        module.zero_grad()
        loss = ctx.loss(module(inputs), targets)
        loss.backward()
        mask_gradients(ctx.network)
        return loss

    optimizer.step(closure)
    module.zero_grad()
    apply_masks(ctx.network)


def loss_of(ctx: Context) -> float:
    inputs, targets = next(iter(ctx.batches(1)))
    with torch.no_grad():
        return float(ctx.loss(ctx.network.module(inputs), targets))


def classification(dtype: torch.dtype, seed: int) -> Context:
    """As the contract of methods wants it: images of 3 x 8 x 8, four classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        arguments = {"in_features": 192, "out_features": 4, "hidden": [3, 2]}
        example = torch.randn(2, 3, 8, 8, dtype=dtype)
        network = Network(dag(**arguments).to(dtype), "coppice.methods.networks.dag:dag", arguments, (example,))
        inputs, targets = torch.randn(8, 3, 8, 8, dtype=dtype), torch.randint(4, (8,))
    return Context(network, lambda count: [(inputs, targets)] * count, F.cross_entropy, torch.Generator().manual_seed(seed))
