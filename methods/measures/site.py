"""Where gradients of new units are computed: one layer that makes units, one that uses them, and what lies between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from coppice.methods.graph.expr import Atom, Const, Prod
from coppice.methods.graph.values import AtomInfo, Element, Occurrence
from coppice.methods.measures.statistics import frozen_modes
from coppice.methods.network import Network

_MIXING = frozenset(
    ("layernorm", "rmsnorm", "groupnorm", "gn_groups", "conv_groups", "attention_scale", "softmax", "reduced", "heads",
     "depthwise", "weight_norm", "tied")
)  # fmt: skip


@dataclass(frozen=True)
class Site:
    """A channel between two layers.

    Attributes:
        producer: name of the Linear or Conv2d whose rows make the units.
        consumer: name of the one whose columns use them.
        taps: columns of the consumer for each unit, kernel positions left aside (more than 1 behind a flatten).
        size: number of units.
        batch_norm: name of the BatchNorm between them, or None.
        tokens: whether both are linear layers over the last of three or more dimensions, as in the feed-forward part of a
            Transformer, [n, tokens, ..., features]: each token counts as a sample.
    """

    producer: str
    consumer: str
    taps: int
    size: int
    batch_norm: str | None
    tokens: bool = False

    def rows(self, tensor: Tensor) -> Tensor:
        """What goes through the site, samples first: tokens as samples, [n * tokens, features]."""
        return tensor.flatten(0, -2) if self.tokens else tensor

    @property
    def entry(self) -> str:
        """Module whose output, unit by unit, is turned into the consumer's input without weights of its own."""
        return self.batch_norm or self.producer


class NoSite(ValueError):
    """An element is no channel between two layers whose gradients can be computed; the message says why."""


def why_no_site(network: Network, element: Element) -> str | None:
    """Why an element has no site; None when it has one."""
    try:
        site_of(network, element)
    except NoSite as error:
        return str(error)
    return None


def sites_among(network: Network, elements: Iterable[Element]) -> dict[str, Site]:
    """Sites by element name, of those elements that have one."""
    return {e.name: site_of(network, e) for e in elements if why_no_site(network, e) is None}


def site_of(network: Network, element: Element) -> Site:
    """The site of a channel.

    Raises:
        NoSite: it has none.
    """
    graph = network.graph()
    if element.joint or element.level != "channel" or element.moves[0].units != 1:
        raise NoSite("it moves together with others")
    info = graph.atoms[element.moves[0].atom]
    mixing = sorted(info.marks & _MIXING)
    if mixing:
        raise NoSite(f"what lies between is not channel by channel ({', '.join(mixing)})")
    made = [o for o in info.occurrences if o.role == "produce"]
    used = [o for o in info.occurrences if o.role == "consume"]
    if len(made) != 1 or len(used) != 1:
        counts = f"{len(made)} and {len(used)}"
        raise NoSite(f"it needs one producer and one consumer, but has {counts} (a residual stream has many)")
    names = [o.tensor.rpartition(".")[0] for o in (made[0], used[0])]
    for name in names:
        reason = _unfit(network, name)
        if reason is not None:
            raise NoSite(reason)
    taps = _taps(used[0])
    if made[0].expr != Atom(info.name, info.size) or taps is None:
        raise NoSite("its units are a part of a concatenation or of a product")
    norm, tokens = _norm_between(network, info, names), _tokens(network, names)
    if tokens and (norm is not None or taps != 1):
        raise NoSite(f"{names[0]} and {names[1]} work on each token, and what lies between mixes them")
    return Site(names[0], names[1], taps, info.size, norm, tokens)


def _tokens(network: Network, names: Sequence[str]) -> bool:
    """Whether both layers work on each token of a sequence.

    Raises:
        NoSite: they work on different positions.
    """
    between = [network.graph().modules[n].inputs[1:-1] for n in names if type(network.module.get_submodule(n)) is nn.Linear]
    if not any(between):
        return False
    if len(between) < 2 or between[0] != between[1]:
        raise NoSite(f"{names[0]} and {names[1]} work on different positions")
    return True


def _norm_between(network: Network, info: AtomInfo, names: Sequence[str]) -> str | None:
    """Name of the BatchNorm between two layers; None without one.

    Raises:
        NoSite: something else has weights for the units.
    """
    graph = network.graph()
    others = {o.tensor.rpartition(".")[0] for o in info.occurrences} - set(names)
    norms = [n for n in others if isinstance(network.module.get_submodule(n), nn.modules.batchnorm._BatchNorm)]
    if len(norms) > 1 or others - set(norms):
        raise NoSite(f"{', '.join(sorted(others))} hold weights of their own for its units")
    if norms and graph.modules[norms[0]].calls != 1:
        raise NoSite(f"{norms[0]} is called {graph.modules[norms[0]].calls} times")
    return norms[0] if norms else None


def _unfit(network: Network, name: str) -> str | None:
    """Why a layer's gradients cannot be computed here; None when they can."""
    module = network.module.get_submodule(name)
    call = network.graph().modules.get(name)
    if call is None or call.calls != 1:
        return f"{name} is called {0 if call is None else call.calls} times"
    if type(module) is nn.Linear:
        return None if len(call.inputs) >= 2 else f"{name} has inputs without a dimension of samples"
    if type(module) is not nn.Conv2d:
        return f"{name} is a {type(module).__name__}, not a Linear or Conv2d"
    if module.groups != 1 or module.padding_mode != "zeros" or isinstance(module.padding, str):
        return f"{name} is a convolution with groups, a padding mode or padding by name"
    return None


def why_no_factor(network: Network, site: Site) -> str | None:
    """Why the BatchNorm of a site cannot be taken as a factor on each unit; None when it can, or where there is none."""
    norm = None if site.batch_norm is None else network.module.get_submodule(site.batch_norm)
    if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_var is None:
        return f"{site.batch_norm} keeps no running statistics, so it mixes the samples of a batch in eval mode too"
    return None


def _taps(o: Occurrence) -> int | None:
    """Entries of the consumer's dimension for each unit; None where the dimension is more than a repetition of units."""
    if isinstance(o.expr, Atom):
        return 1
    if isinstance(o.expr, Prod) and isinstance(o.expr.factors[0], Atom) and all(isinstance(f, Const) for f in o.expr.factors[1:]):
        return o.expr.size // o.expr.factors[0].size
    return None


@contextmanager
def replaced_output(network: Network, name: str, value: Tensor) -> Iterator[None]:
    """Within: the module called `name` returns `value` whatever it computes."""
    hook = network.module.get_submodule(name).register_forward_hook(lambda module, inputs, output: value * 1)
    try:
        yield
    finally:
        hook.remove()


def through(network: Network, site: Site, inputs: Tensor, z: Tensor) -> Tensor:
    """The consumer's input when the producer (its BatchNorm, where there is one) returns `z`; differentiable in `z`."""
    caught: list[Tensor] = []
    consumer = network.module.get_submodule(site.consumer)
    hook = consumer.register_forward_pre_hook(lambda module, args: caught.append(args[0].clone()))
    try:
        with frozen_modes(network.module), replaced_output(network, site.entry, z), torch.set_grad_enabled(z.requires_grad):
            network.module(inputs)
    finally:
        hook.remove()
    return caught[0]


def entry_output(network: Network, site: Site, inputs: Tensor) -> Tensor:
    """What the site's entry returns for a batch."""
    caught: list[Tensor] = []
    entry = network.module.get_submodule(site.entry)
    hook = entry.register_forward_hook(lambda module, args, output: caught.append(output.detach().clone()))
    try:
        with frozen_modes(network.module), torch.no_grad():
            network.module(inputs)
    finally:
        hook.remove()
    return caught[0]


def why_not_zero(run: Callable[[Tensor], Tensor], shape: torch.Size, like: Tensor, epsilon: float = 1e-4) -> str | None:
    """Why new units with zero fan-in would not do; None when the path is 0 at 0 and linear there with a derivative not 0."""
    step = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * epsilon).to(like)
    zero = torch.zeros_like(step).requires_grad_()
    at = run(zero)
    if float(at.detach().abs().max()) > 1e-6:
        return "the activation is not 0 at 0, so zero fan-in would change the function"
    forward, backward = run(step), run(-step)
    size = float(forward.norm())
    if float((forward + backward).norm()) > 1e-2 * size:
        return "the path is not linear at 0 (ReLU, max-pooling): its derivative there is 0 or one-sided"
    if size == 0.0 or not at.requires_grad or float(torch.autograd.grad(at, zero, torch.ones_like(at))[0].abs().max()) == 0.0:
        return "the derivative of the path at 0 is 0, so new units with zero fan-in would never learn"
    return None
