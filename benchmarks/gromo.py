"""A growth event of GradMax and of TINY, against GroMo 0.1.0. Goals: at least 2x faster; the same subspaces (cosine >= 0.999).

Both grow one hidden layer (GroMo cannot grow neighbours in one event) of the same networks, with the same weights, batch, loss
and number of new units, in alternating rounds of one process; a figure is the ratio of the medians, of the CPU time of one
thread. An event is all from the training batch to the grown network: moments, decomposition, surgery; ours also traces the
network, which GroMo's need not as they are written with its modules. GroMo's own calls accumulate every statistic; "lean" leaves
out those that GradMax does not use. Activations have the derivative 1 at 0 and layers have no bias, where both libraries are
exact: GroMo's GradMax counts the gradient of a new unit's bias, the paper's does not. Subspaces are compared in float64.
GroMo comes with `pip install -e .[bench]`.
"""

import copy
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

if Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    del sys.path[0]  # else this file would hide the package of its name

import torch
from gromo.modules.conv2d_growing_module import FullConv2dGrowingModule
from gromo.modules.growing_module import GrowingModule
from gromo.modules.linear_growing_module import LinearGrowingModule
from torch import Tensor, nn

from coppice.methods.apply import apply
from coppice.methods.growth.gradmax import GradMax
from coppice.methods.growth.tiny.method import Tiny
from coppice.methods.method import Context, Method
from coppice.methods.network import Network

ROUNDS, UNITS = {"mlp": 11, "conv": 3}, 8
MLP, CONV = (784, 128, 128, 10), (3, 32, 32, 32)
BATCH, IMAGE = 1536, 16
TINY_FLAGS = {"compute_delta": False}
GRADMAX_FLAGS = {
    "compute_delta": False, "use_covariance": False, "alpha_zero": True, "use_projection": False, "ignore_singular_values": True
}  # fmt: skip


class Head(nn.Module):
    """Mean over positions, then a linear layer; neither library grows it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(torch.tanh(x).mean((2, 3)))


def mlp() -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(MLP)):
        layers += [nn.Linear(before, after, bias=False), *([nn.Tanh()] if i < len(MLP) - 2 else [])]
    return nn.Sequential(*layers)


def conv() -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (before, after) in enumerate(pairwise(CONV)):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), *([nn.Tanh()] if i < len(CONV) - 2 else [])]
    return nn.Sequential(*layers, Head(CONV[-1]))


def theirs(module: nn.Sequential, grown: int) -> tuple[nn.Sequential, GrowingModule]:
    """The same network of GroMo's modules, and the layer whose input grows."""
    layers: list = []
    head = [m for m in module if isinstance(m, Head)]
    old = [m for m in module if isinstance(m, (nn.Linear, nn.Conv2d))]
    for i, layer in enumerate(old):
        after = nn.Tanh() if i < len(old) - 1 else nn.Identity()
        previous = layers[-1] if layers else None
        more = {"post_layer_function": after, "previous_module": previous, "name": str(i), "use_bias": False}
        if isinstance(layer, nn.Linear):
            other = LinearGrowingModule(layer.in_features, layer.out_features, **more)
        else:
            size = (IMAGE, IMAGE)
            other = FullConv2dGrowingModule(layer.in_channels, layer.out_channels, 3, padding=1, input_size=size, **more)
        other.layer.load_state_dict(layer.state_dict())
        layers.append(other)
    return nn.Sequential(*layers, *copy.deepcopy(head)), layers[grown]


def our_event(network: Network, name: str, method: Method, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor | None]:
    """What was added: outgoing weights [units, ...], and incoming ones with their bias where they are not zero."""
    ctx = Context(network, lambda n: [(inputs, targets)] * n, nn.functional.cross_entropy, torch.Generator().manual_seed(0))
    element = network.element(name)
    assert method.accepts(ctx, element) is None
    measured = method.measure(ctx, [element], {name: UNITS})
    apply(network, method.plan(ctx, element, range(UNITS), measured))
    data = measured.data[name]
    return data["columns" if "columns" in data else "outgoing"], data.get("incoming")


def their_event(
    model: nn.Sequential, layer: GrowingModule, flags: dict, lean: bool, inputs: Tensor, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """The same event by gromo: what `our_event` returns."""
    layer.init_computation()
    nn.functional.cross_entropy(model(inputs), targets, reduction="sum").backward()
    if lean:
        layer.tensor_m_prev.update()
    else:
        layer.update_computation()
    layer.compute_optimal_updates(maximum_added_neurons=UNITS, **flags)
    layer.reset_computation()
    before, columns = layer.previous_module.extended_output_layer, layer.extended_input_layer.weight.detach().movedim(1, 0)
    rows = before.weight.detach().flatten(1).clone()
    layer.apply_change(scaling_factor=1.0)
    layer.delete_update()
    return columns.clone(), rows


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of the largest principal angle between the rows' spans."""
    bases = [torch.linalg.qr(m.double().flatten(1).T).Q for m in (a, b)]
    return float(torch.linalg.svdvals(bases[0].T @ bases[1]).min())


def seconds(action: Callable[[], tuple[Tensor, Tensor | None]]) -> tuple[float, tuple[Tensor, Tensor | None]]:
    began = time.process_time()
    result = action()
    return time.process_time() - began, result


def compare(
    name: str, build: Callable[[], nn.Sequential], inputs: Tensor, grown: int, method: Method, flags: dict
) -> tuple[list, float]:
    """Median seconds of ours, of theirs, of their lean one; and the smallest cosine, in float64."""
    targets = torch.randint(10, (len(inputs),))
    times: list[list[float]] = [[], [], []]
    same = 1.0
    for turn in range(ROUNDS[name] + 2):
        dtype = torch.float64 if turn == 0 else torch.float32
        module, x = build().to(dtype), inputs.to(dtype)
        network, element = Network(copy.deepcopy(module), "", {}, (x[:2],)), f"{2 * grown - 2}.weight:0"
        took, (columns, rows) = seconds(partial(our_event, network, element, method, x, targets))
        times[0].append(took)
        for lean in (False, True):
            if lean and "use_projection" not in flags:
                continue
            torch.set_default_dtype(dtype)
            event = partial(their_event, *theirs(module, grown), flags | {"dtype": dtype}, lean, x, targets)
            took, (others, incoming) = seconds(event)
            torch.set_default_dtype(torch.float32)
            times[1 + lean].append(took)
            if turn == 0:
                same = min(same, cosine(columns, others), 1.0 if rows is None else cosine(rows, incoming))
    return [statistics.median(row[2:]) if row else float("nan") for row in times], same


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cases = {"mlp": (mlp, torch.randn(BATCH, MLP[0]), 1), "conv": (conv, torch.randn(BATCH // 24, 3, IMAGE, IMAGE), 2)}
    methods = {"GradMax": (GradMax(zero="fan_in"), GRADMAX_FLAGS), "TINY": (Tiny(line_search=False), TINY_FLAGS)}
    print(f"{'network':8s} {'method':8s} {'ours, ms':>9s} {'GroMo, ms':>10s} {'times faster':>13s} {'lean':>7s} {'cosine':>8s}")
    for name, (build, inputs, grown) in cases.items():
        for label, (method, flags) in methods.items():
            (a, b, c), same = compare(name, build, inputs, grown, method, flags)
            print(f"{name:8s} {label:8s} {1e3 * a:9.1f} {1e3 * b:10.1f} {b / a:13.1f} {c / a:7.1f} {same:8.5f}")


if __name__ == "__main__":
    main()
