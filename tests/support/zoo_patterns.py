"""Single patterns that networks are made of: `PATTERNS[name] = (factory, example inputs)`."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Inputs = tuple[Tensor, ...]
Forward = Callable[[Any, Tensor], Tensor]


class Made(nn.Module):
    """A module of the given parts with the given forward."""

    def __init__(self, forward: Forward, **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def _image() -> Inputs:
    return (torch.randn(2, 3, 16, 16),)


def _sequence() -> Inputs:
    return (torch.randn(2, 5, 12),)


def conv_transpose_unet() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.o(torch.cat([m.t(m.a(x)), x], 1))

    return Made(forward, a=nn.Conv2d(3, 8, 3, 2, 1), t=nn.ConvTranspose2d(8, 6, 2, 2), o=nn.Conv2d(9, 4, 1))


def pixel_shuffle() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.o(m.p(m.a(x)))

    return Made(forward, a=nn.Conv2d(3, 16, 3, padding=1), p=nn.PixelShuffle(2), o=nn.Conv2d(4, 2, 1))


def pixel_unshuffle() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.o(F.pixel_unshuffle(m.a(x), 2))

    return Made(forward, a=nn.Conv2d(3, 4, 3, padding=1), o=nn.Conv2d(16, 2, 1))


def upsample_instance_norm() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.o(F.interpolate(m.n(m.a(x)), scale_factor=2.0, mode="bilinear"))

    norm = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
    return Made(forward, a=nn.Conv2d(3, 8, 3, padding=1), n=norm, o=nn.Conv2d(8, 2, 1))


def convnext_block() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        z = m.g * m.q(F.gelu(m.p(m.n(m.d(y).permute(0, 2, 3, 1)))))
        return m.o((y + z.permute(0, 3, 1, 2)).mean((-2, -1)))

    parts = {"a": nn.Conv2d(3, 8, 4, 4), "d": nn.Conv2d(8, 8, 7, padding=3, groups=8), "n": nn.LayerNorm(8)}
    return Made(forward, **parts, p=nn.Linear(8, 32), q=nn.Linear(32, 8), g=nn.Parameter(torch.ones(8)), o=nn.Linear(8, 2))


def einsum_attention() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        q, k, v = (p(x).view(2, 5, 4, 4) for p in (m.q, m.k, m.v))
        weights = torch.einsum("bnhd,bmhd->bhnm", q, k).softmax(-1)
        return m.o(torch.einsum("bhnm,bmhd->bnhd", weights, v).reshape(2, 5, 16))

    return Made(forward, q=nn.Linear(12, 16), k=nn.Linear(12, 16), v=nn.Linear(12, 16), o=nn.Linear(16, 3))


def transformer_layer() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.o(m.t(m.e(x)))

    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    return Made(forward, e=nn.Linear(12, 16), t=layer, o=nn.Linear(16, 3))


def swiglu() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.o(x + m.d(F.silu(m.g(x)) * m.u(x)))

    return Made(forward, g=nn.Linear(12, 20), u=nn.Linear(12, 20), d=nn.Linear(20, 12), o=nn.Linear(12, 3))


def glu() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.d(F.glu(m.g(x)))

    return Made(forward, g=nn.Linear(12, 40), d=nn.Linear(20, 3))


def rms_norm_rope() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        a, b = m.q(m.n(x)).chunk(2, -1)
        return m.o(torch.cat([a * 0.5 - b * 0.2, b * 0.5 + a * 0.2], -1))

    return Made(forward, n=nn.RMSNorm(12), q=nn.Linear(12, 16), o=nn.Linear(16, 3))


def prelu_maximum() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.o(m.p(m.a(x)).amax((2, 3)))

    return Made(forward, a=nn.Conv2d(3, 8, 3), p=nn.PReLU(8), o=nn.Linear(8, 2))


def weight_norm() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.o(F.relu(m.a(x)))

    return Made(forward, a=nn.utils.parametrizations.weight_norm(nn.Conv1d(5, 8, 3)), o=nn.Conv1d(8, 2, 1))


def gru() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.o(m.g(x)[0])

    return Made(forward, g=nn.GRU(12, 8, batch_first=True), o=nn.Linear(8, 3))


def static_index() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.o(m.a(x)[..., torch.tensor([0, 2, 4, 6])])

    return Made(forward, a=nn.Linear(12, 8), o=nn.Linear(4, 2))


def channel_statistics() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        both = torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1)
        return m.o(y * torch.sigmoid(m.c(both)))

    return Made(forward, a=nn.Conv2d(3, 8, 3, padding=1), c=nn.Conv2d(2, 1, 7, padding=3), o=nn.Conv2d(8, 2, 1))


def padded_shortcut() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.o(m.b(y) + F.pad(y[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2)))

    return Made(forward, a=nn.Conv2d(3, 4, 3, padding=1), b=nn.Conv2d(4, 8, 3, 2, 1), o=nn.Conv2d(8, 2, 1))


def dense_experts() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        outputs = torch.stack([expert(x) for expert in m.e], -1)
        return m.o((outputs * m.r(x).softmax(-1).unsqueeze(-2)).sum(-1))

    experts = nn.ModuleList(nn.Linear(12, 8) for _ in range(3))
    return Made(forward, e=experts, r=nn.Linear(12, 3), o=nn.Linear(8, 2))


def bare_parameters() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.o(x @ m.w + m.b)

    return Made(forward, w=nn.Parameter(torch.randn(12, 8)), b=nn.Parameter(torch.zeros(8)), o=nn.Linear(8, 2))


def checkpointed() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.o(checkpoint(m.a, x, use_reentrant=False))

    return Made(forward, a=nn.Linear(12, 8), o=nn.Linear(8, 2))


def low_rank() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.o(F.relu(F.linear(x, m.b @ m.a)))

    return Made(forward, a=nn.Parameter(torch.randn(4, 12)), b=nn.Parameter(torch.randn(8, 4)), o=nn.Linear(8, 2))


def literal_view() -> nn.Module:
    def forward(m: Any, x: Tensor) -> Tensor:
        return m.o(m.a(x).view(2, 5, 4, 4).transpose(-1, -2).reshape(2, 5, 16))

    return Made(forward, a=nn.Linear(12, 16), o=nn.Linear(16, 2))


def channel_attention() -> nn.Module:
    """The convolution of an efficient channel attention slides over the channels."""

    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.a(x)
        return m.o(y * m.c(y.mean((2, 3)).unsqueeze(1)).sigmoid().transpose(1, 2).unsqueeze(-1))

    return Made(forward, a=nn.Conv2d(3, 8, 3), c=nn.Conv1d(1, 1, 3, padding=1), o=nn.Conv2d(8, 2, 1))


_FACTORIES: dict[Callable[[], Inputs], tuple[Callable[..., nn.Module], ...]] = {
    _image: (
        conv_transpose_unet, pixel_shuffle, pixel_unshuffle, upsample_instance_norm, convnext_block, prelu_maximum,
        channel_statistics, padded_shortcut, channel_attention,
    ),
    _sequence: (
        einsum_attention, transformer_layer, swiglu, glu, rms_norm_rope, weight_norm, gru, static_index, dense_experts,
        bare_parameters, checkpointed, low_rank, literal_view,
    ),
}  # fmt: skip
PATTERNS = {factory.__name__: (factory, inputs) for inputs, factories in _FACTORIES.items() for factory in factories}
