"""What the size attributes of torch's own modules follow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from coppice.methods.graph.given import Attribute, Computed, Extent, Given, Origin
from coppice.methods.graph.terms import Term
from coppice.methods.graph.watch import Watch

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1, "LSTMCell": 4, "GRUCell": 3, "RNNCell": 1}


def follow_shapes(modules: Iterable[nn.Module], watch: Watch) -> None:
    """For the time of the trace, let `out_features` and the like be numbers that remember a dimension of the module's weight."""
    for m in modules:
        for name, origin in _origins(m, watch):
            value = m.__dict__.get(name)
            if type(value) is Given and value > 0:
                m.__dict__[name] = Given(int(value), origin)


def _origins(m: nn.Module, watch: Watch) -> Iterator[tuple[str, Origin]]:
    def extent(tensor: Tensor | None, dim: int) -> Term | None:
        value = None if tensor is None else watch.values.get(id(tensor))
        return None if value is None else value.dims[dim]

    found: list[tuple[str, Term | None]] = []
    if isinstance(m, nn.Linear):
        found = [("out_features", extent(m.weight, 0)), ("in_features", extent(m.weight, 1))]
    elif isinstance(m, nn.modules.conv._ConvNd):
        first, second = ("in_channels", "out_channels") if m.transposed else ("out_channels", "in_channels")
        found = [(first, extent(m.weight, 0))]
        inner = extent(m.weight, 1)
        if inner is not None:
            yield second, Computed("*", Extent(inner), Attribute(m, "groups", int(m.groups))) if m.groups > 1 else Extent(inner)
    elif isinstance(m, nn.modules.batchnorm._NormBase):
        found = [("num_features", extent(m.weight if m.weight is not None else m.running_mean, 0))]
    elif isinstance(m, nn.GroupNorm):
        found = [("num_channels", extent(m.weight, 0))]
    elif isinstance(m, (nn.Embedding, nn.EmbeddingBag)):
        found = [("num_embeddings", extent(m.weight, 0)), ("embedding_dim", extent(m.weight, 1))]
    elif isinstance(m, nn.PReLU):
        found = [("num_parameters", extent(m.weight, 0))]
    for name, term in found:
        if term is not None:
            yield name, Extent(term)
