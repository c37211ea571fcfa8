"""One small network for each less common operator, with a width that it leaves free: `OPERATORS[name] = (factory, inputs)`."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.zoo_patterns import Forward, Inputs, Made

EDGES = torch.tensor([[0, 1, 2, 3, 4, 0, 2], [1, 2, 3, 4, 0, 2, 4]])
Middle = Callable[[Any, Tensor, Tensor], Tensor]
"""From the module, the input and the hidden layer to what the last layer sees."""


def _image() -> Inputs:
    return (torch.randn(2, 3, 8, 8),)


def _sequence() -> Inputs:
    return (torch.randn(2, 5, 6),)


def _rows() -> Inputs:
    return (torch.randn(5, 6),)


def _around(middle: Middle) -> Forward:
    return lambda m, x: m.o(middle(m, x, m.a(x)))


def _linear(middle: Middle, inputs: Callable[[], Inputs], wide: int = 8, **parts: Callable[[], nn.Module | nn.Parameter]) -> Any:
    def factory() -> nn.Module:
        return Made(_around(middle), a=nn.Linear(6, 8), o=nn.Linear(wide, 3), **{k: make() for k, make in parts.items()})

    return factory, inputs


def _conv(middle: Middle, wide: int = 8, **parts: Callable[[], nn.Module]) -> Any:
    def factory() -> nn.Module:
        a, o = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(wide, 3, 1)
        return Made(_around(middle), a=a, o=o, **{k: make() for k, make in parts.items()})

    return factory, _image


def _sums(h: Tensor, how: str) -> Tensor:
    """Message passing: rows of sources, summed at targets."""
    source, target = EDGES.to(h.device)
    message = h[source]
    if how == "index_add":
        return torch.zeros(h.size(0), h.size(1)).index_add_(0, target, message)
    spread = target[:, None].expand_as(message)
    if how == "scatter_add":
        return torch.zeros_like(h).scatter_add(0, spread, message)
    return h.new_zeros(h.size(0), h.size(1)).scatter_reduce_(0, spread, message, how, include_self=False)


def _sparse(m: Any, x: Tensor, h: Tensor) -> Tensor:
    with torch.sparse.check_sparse_tensor_invariants():
        edges = torch.sparse_coo_tensor(EDGES.flip(0), torch.ones(7), (5, 5))
    return torch.sparse.mm(edges, h)


def _grid(n: int) -> Tensor:
    return F.affine_grid(torch.eye(2, 3)[None].expand(n, 2, 3), [n, 1, 8, 8], align_corners=False)


def _spectral(m: Any, x: Tensor, h: Tensor) -> Tensor:
    f = torch.fft.rfft(h, dim=1)
    out = torch.zeros(x.shape[0], f.shape[1], m.w.shape[1], dtype=torch.cfloat)
    out[:, :2] = torch.einsum("bki,iok->bko", f[:, :2], m.w)
    return torch.fft.irfft(out, n=x.shape[1], dim=1)


def _complex_parts(m: Any, x: Tensor, h: Tensor) -> Tensor:
    z = torch.complex(h, h.roll(1, 1)) * torch.polar(torch.ones(5, 1), torch.arange(5.0)[:, None])
    return torch.view_as_real(z.conj().resolve_conj()).sum(-1) + z.real * z.imag + z.abs()


def _experts(m: Any, x: Tensor, h: Tensor) -> Tensor:
    weight, chosen = m.g(h).softmax(-1).max(-1)
    order = chosen.argsort()
    ends = torch.bincount(chosen, minlength=m.g.out_features).cumsum(0).to(torch.int32)
    y = torch._grouped_mm(h[order], m.up.transpose(1, 2), offs=ends)
    y = torch._grouped_mm(torch.relu(y), m.down.transpose(1, 2), offs=ends)
    return torch.zeros_like(h).index_copy(0, order, y) * weight[:, None]


def _quantised(m: Any, x: Tensor, h: Tensor) -> Tensor:
    h = torch.fake_quantize_per_tensor_affine(h, 0.05, 0, -128, 127)
    w = torch.fake_quantize_per_tensor_affine(m.l.weight, torch.tensor(0.05), torch.tensor(0), -128, 127)
    return F.linear(h, w, m.l.bias)


def _unpooled(m: Any, x: Tensor, h: Tensor) -> Tensor:
    small, where = F.max_pool2d(h, 2, return_indices=True)
    return F.max_unpool2d(small, where, 2)


def _recurrent(m: Any, x: Tensor, h: Tensor) -> Tensor:
    state = None
    for t in range(x.shape[1]):
        state = m.r(h[:, t], state)
    return state[0] if isinstance(state, tuple) else state  # type: ignore[return-value]


def _shape_only(m: Any, x: Tensor, h: Tensor) -> Tensor:
    only = h[:, :, -1]
    return h + m.p(torch.arange(only.shape[1], device=h.device))


def _halves(m: Any, x: Tensor, h: Tensor) -> Tensor:
    n = h.shape[-1]
    return torch.cat([h[..., :n] * 2, h[..., n:]], -1)


def _spectrogram(m: Any, x: Tensor, h: Tensor) -> Tensor:
    rows = h.transpose(1, 2).reshape(-1, x.shape[1])
    size = torch.stft(rows, 4, 1, window=torch.ones(4), return_complex=True).abs().mean(1)
    return size.view(x.shape[0], -1, size.shape[-1]).transpose(1, 2)


def _packed(m: Any, x: Tensor, h: Tensor) -> Tensor:
    sequence = nn.utils.rnn.pack_padded_sequence(h, torch.tensor([5, 3]), batch_first=True)
    return nn.utils.rnn.pad_packed_sequence(m.r(sequence)[0], batch_first=True)[0]


def _filled(m: Any, x: Tensor, h: Tensor) -> Tensor:
    mask = (x[..., :1] > 0).expand_as(h)
    return h.masked_scatter(mask, torch.relu(h[x[..., 0] > 0]))


OPERATORS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Inputs]]] = {
    "index_select": _linear(lambda m, x, h: h.index_select(1, torch.tensor([4, 3, 2])), _sequence),
    "index_add": _linear(lambda m, x, h: _sums(h, "index_add"), _rows),
    "index_copy": _linear(lambda m, x, h: torch.zeros_like(h).index_copy(0, EDGES[0, :5].clone(), h), _rows),
    "index_fill": _linear(lambda m, x, h: h.index_fill(1, torch.tensor([0, 2]), 0.0), _sequence),
    "scatter_add": _linear(lambda m, x, h: _sums(h, "scatter_add"), _rows),
    "scatter_mean": _linear(lambda m, x, h: _sums(h, "mean"), _rows),
    "scatter_max": _linear(lambda m, x, h: _sums(h, "amax"), _rows),
    "gather": _linear(lambda m, x, h: h.gather(1, x[..., :1].argsort(1).expand(-1, -1, h.shape[-1])), _sequence),
    "take_along": _linear(lambda m, x, h: torch.take_along_dim(h, x[..., :1].argsort(1), 1), _sequence),
    "masked_scatter": _linear(_filled, _sequence),
    "sparse": _linear(_sparse, _rows),
    "spectral": _linear(_spectral, _sequence, w=lambda: nn.Parameter(torch.randn(8, 8, 2, dtype=torch.cfloat))),
    "complex_parts": _linear(_complex_parts, _sequence),
    "fft_of_time": _linear(lambda m, x, h: torch.fft.fft2(h, dim=(0, 1)).real, _sequence),
    "folded": _conv(lambda m, x, h: F.fold(F.unfold(h, 3, padding=1), (8, 8), 3, padding=1)),
    "unfolded": _conv(
        lambda m, x, h: m.l(F.unfold(h, 3, padding=1).transpose(1, 2)).transpose(1, 2).unflatten(2, (8, 8)),
        l=lambda: nn.Linear(72, 8),
    ),
    "windows": _linear(lambda m, x, h: h.unfold(1, 3, 1).sum(-1), _sequence),
    "grid_sample": _conv(lambda m, x, h: F.grid_sample(h, _grid(2).to(h.device), align_corners=False)),
    "unpool": _conv(_unpooled),
    "channel_shuffle": _conv(lambda m, x, h: F.channel_shuffle(h, 2)),
    "pooled_permuted": _linear(lambda m, x, h: F.adaptive_avg_pool2d(h[:, None].permute(0, 3, 1, 2), 1).flatten(1), _sequence),
    "adaptive_max": _conv(lambda m, x, h: F.adaptive_max_pool2d(h, 4)),
    "fractional": _conv(lambda m, x, h: F.fractional_max_pool2d(h, 2, 4, _random_samples=torch.rand(2, h.shape[1], 2))),
    "lp_pool": _conv(lambda m, x, h: F.lp_pool2d(h, 2, 2)),
    "upsample": _conv(lambda m, x, h: nn.Upsample(scale_factor=2, mode="bicubic")(h)),
    "circular": _conv(lambda m, x, h: F.pad(h, (1, 1, 1, 1), mode="circular")),
    "replicate": _conv(lambda m, x, h: F.pad(h, (1, 1, 1, 1), mode="replicate")),
    "bilinear": _linear(lambda m, x, h: m.l(h, x), _rows, l=lambda: nn.Bilinear(8, 6, 8)),
    "bilinear_square": _linear(lambda m, x, h: m.l(h, h), _rows, l=lambda: nn.Bilinear(8, 8, 8)),
    "distances": _linear(
        lambda m, x, h: torch.exp(-torch.cdist(h, m.l)), _rows, l=lambda: nn.Parameter(torch.randn(8, 8)),
    ),
    "similarity": _linear(lambda m, x, h: h * F.cosine_similarity(h, h.roll(1, 0), dim=-1)[:, None], _rows),
    "bags": _linear(
        lambda m, x, h: h + m.l(torch.arange(10, device=h.device).view(5, 2)), _rows, l=lambda: nn.EmbeddingBag(20, 8),
    ),
    "experts": _linear(
        _experts, _rows, g=lambda: nn.Linear(8, 4), up=lambda: nn.Parameter(torch.randn(4, 16, 8)),
        down=lambda: nn.Parameter(torch.randn(4, 8, 16)),
    ),
    "quantised": _linear(_quantised, _rows, l=lambda: nn.Linear(8, 8)),
    "lstm_cell": _linear(_recurrent, _sequence, r=lambda: nn.LSTMCell(8, 8)),
    "gru_cell": _linear(_recurrent, _sequence, r=lambda: nn.GRUCell(8, 8)),
    "rnn_cell": _linear(_recurrent, _sequence, r=lambda: nn.RNNCell(8, 8)),
    "projected": _linear(
        lambda m, x, h: m.r(h)[0], _sequence, 3, r=lambda: nn.LSTM(8, 8, 2, batch_first=True, proj_size=3),
    ),
    "both_ways_projected": _linear(
        lambda m, x, h: m.r(h)[0], _sequence, 6, r=lambda: nn.LSTM(8, 8, 1, batch_first=True, proj_size=3, bidirectional=True),
    ),
    "shape_only": _linear(_shape_only, _sequence, p=lambda: nn.Embedding(9, 8)),
    "empty_slice": _linear(_halves, _sequence),
    "rates": _linear(lambda m, x, h: F.celu(h) + F.softplus(h) + F.logsigmoid(h) + F.rrelu(h) + F.hardtanh(h), _rows),
    "steps": _linear(lambda m, x, h: F.threshold(h, 0.1, 0.0) + F.softsign(h) + F.relu6(h) + F.tanhshrink(h), _rows),
    "running": _linear(lambda m, x, h: h.cummax(1)[0] + h.logcumsumexp(1), _sequence),
    "lower": _linear(lambda m, x, h: torch.ones(5, 5).tril() @ h, _sequence),
    "pooled_heads": _linear(lambda m, x, h: F.avg_pool2d(h[:, None], (2, 1)).squeeze(1), _sequence),
    "blur": _conv(
        lambda m, x, h: F.conv2d(h, torch.ones(1, 1, 3, 3, device=h.device).repeat(h.shape[1], 1, 1, 1), groups=h.shape[1]),
    ),
    "standardised": _conv(
        lambda m, x, h: F.conv2d(torch.relu(h), F.batch_norm(
            m.l.weight.reshape(1, m.l.weight.shape[0], -1), None, None, weight=m.gain, training=True, eps=1e-6,
        ).reshape_as(m.l.weight)),
        l=lambda: nn.Conv2d(8, 8, 3), gain=lambda: nn.Parameter(torch.ones(8)),
    ),
    "normalised_rows": _linear(
        lambda m, x, h: F.linear(h, F.layer_norm(m.l.weight, m.l.weight.shape[1:])), _rows, l=lambda: nn.Linear(8, 8),
    ),
    "frames": _linear(_spectrogram, _sequence),
    "packed": _linear(_packed, _sequence, r=lambda: nn.GRU(8, 8, batch_first=True)),
    "bounded_table": _linear(
        lambda m, x, h: h + m.l(torch.arange(5, device=h.device)), _sequence, l=lambda: nn.Embedding(9, 8, max_norm=1.0),
    ),
    "counts": _linear(
        lambda m, x, h: h * torch.bucketize(h, torch.tensor([0.0, 1.0], device=h.device)) * (h > 0).any(1, True)
        + torch.count_nonzero(h, 1)[:, None], _sequence,
    ),
    "noise": _linear(lambda m, x, h: h * F.gumbel_softmax(h * 0, dim=1).detach().gt(2), _sequence),
    "extremes": _linear(lambda m, x, h: h.sort(1)[0][:, -3:] + h.topk(3, 1)[0], _sequence),
}  # fmt: skip
