"""Networks of other fields in plain PyTorch: graphs, operators, diffusion, detection, splines, experts."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


class GraphConvolution(nn.Module):
    """Messages along edges, normalised by the degrees (Kipf and Welling), summed by `index_add`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.lin, self.bias = nn.Linear(inputs, outputs, bias=False), nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        source, target = edges[0], edges[1]
        degree = torch.zeros(x.shape[0]).index_add(0, target, torch.ones(edges.shape[1])).clamp(min=1).rsqrt()
        messages = self.lin(x)[source] * (degree[source] * degree[target])[:, None]
        return torch.zeros(x.shape[0], messages.shape[1]).index_add(0, target, messages) + self.bias


class GCN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = GraphConvolution(6, 24), GraphConvolution(24, 16)
        self.norm, self.head = nn.BatchNorm1d(24), nn.Linear(16, 3)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x, edges)))
        return self.head(F.relu(self.second(x, edges)))


class SAGE(nn.Module):
    """The mean of the neighbours by `scatter_add`, beside one's own features (Hamilton et al.)."""

    def __init__(self) -> None:
        super().__init__()
        self.neighbours, self.own, self.head = nn.Linear(6, 24), nn.Linear(6, 24, bias=False), nn.Linear(24, 3)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        index = edges[1][:, None].expand(-1, x.shape[1])
        total = torch.zeros_like(x).scatter_add(0, index, x.index_select(0, edges[0]))
        degree = torch.zeros(x.shape[0], 1).index_add(0, edges[1], torch.ones(edges.shape[1], 1)).clamp(min=1)
        return self.head(F.relu(self.neighbours(total / degree) + self.own(x)))


class GAT(nn.Module):
    """Attention over the edges of a graph (Velickovic et al.): a softmax over the edges that end in one node."""

    def __init__(self, heads: int = 2, size: int = 8) -> None:
        super().__init__()
        self.heads, self.size = heads, size
        self.lin, self.head = nn.Linear(6, heads * size, bias=False), nn.Linear(heads * size, 3)
        self.source, self.target = (nn.Parameter(torch.randn(1, heads, size) * 0.1) for _ in range(2))

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        h = self.lin(x).view(-1, self.heads, self.size)
        score = (h * self.source).sum(-1)[edges[0]] + (h * self.target).sum(-1)[edges[1]]
        weight = F.leaky_relu(score, 0.2).exp()
        total = torch.zeros(x.shape[0], self.heads).index_add(0, edges[1], weight)
        messages = h[edges[0]] * (weight / total[edges[1]])[..., None]
        out = torch.zeros_like(h).index_add(0, edges[1], messages)
        return self.head(F.elu(out.flatten(1)))


class GIN(nn.Module):
    """Sums of neighbours through an MLP (Xu et al.), with residual connections and a sum over each graph."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.inp, self.eps = nn.Linear(6, width), nn.Parameter(torch.zeros(1))
        self.mlp = nn.Sequential(nn.Linear(width, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, width))
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        x = self.inp(x)
        total = torch.zeros_like(x).index_add_(0, edges[1], x[edges[0]])
        x = x + self.mlp((1 + self.eps) * x + total)
        graph = torch.arange(x.shape[0]) // 5
        return self.head(x.new_zeros(2, x.shape[1]).index_add_(0, graph, x))


def graph() -> tuple[Tensor, ...]:
    return _noise(10, 6), torch.stack([torch.arange(30) % 10, (torch.arange(30) * 7 + 3) % 10])


class SpectralConvolution(nn.Module):
    """A linear map of the lowest Fourier modes (Li et al., Fourier neural operator)."""

    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.modes = modes
        self.weight = nn.Parameter(torch.randn(width, width, modes, modes, dtype=torch.cfloat) / width)

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(x)
        m = self.modes
        out = torch.zeros(x.shape[0], self.weight.shape[1], spectrum.shape[2], spectrum.shape[3], dtype=torch.cfloat)
        out[:, :, :m, :m] = torch.einsum("bixy,ioxy->boxy", spectrum[:, :, :m, :m], self.weight)
        return torch.fft.irfft2(out, s=x.shape[-2:])


class FNO(nn.Module):
    def __init__(self, width: int = 12, modes: int = 4) -> None:
        super().__init__()
        self.lift = nn.Conv2d(2, width, 1)
        self.spectral, self.skip = SpectralConvolution(width, modes), nn.Conv2d(width, width, 1)
        self.project = nn.Sequential(nn.Conv2d(width, 24, 1), nn.GELU(), nn.Conv2d(24, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.lift(x)
        return self.project(F.gelu(self.spectral(x) + self.skip(x)))


class TimeBlock(nn.Module):
    """GroupNorm, SiLU, convolution, with the time embedding added in between (Ho et al.)."""

    def __init__(self, inputs: int, outputs: int, time: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(4, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(time, outputs)
        self.norm2, self.conv2 = nn.GroupNorm(4, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(t))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(y)))


class ImageAttention(nn.Module):
    def __init__(self, channels: int, heads: int = 2) -> None:
        super().__init__()
        self.heads, self.norm = heads, nn.GroupNorm(4, channels)
        self.qkv, self.proj = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, self.heads, -1, h * w).chunk(3, dim=2)
        weight = (torch.einsum("bhcn,bhcm->bhnm", q, k) * q.shape[2] ** -0.5).softmax(-1)
        return x + self.proj(torch.einsum("bhnm,bhcm->bhcn", weight, v).reshape(b, -1, h, w))


class DiffusionUNet(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.width = width
        self.time = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))
        self.inp, self.down1 = nn.Conv2d(3, width, 3, padding=1), TimeBlock(width, width, 4 * width)
        self.pool, self.down2 = nn.Conv2d(width, width, 3, 2, 1), TimeBlock(width, 2 * width, 4 * width)
        self.attention = ImageAttention(2 * width)
        self.up = TimeBlock(3 * width, width, 4 * width)
        self.norm, self.out = nn.GroupNorm(4, width), nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        rates = torch.exp(-math.log(10000) * torch.arange(self.width // 2) / (self.width // 2))
        angles = t[:, None].float() * rates
        time = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        high = self.down1(self.inp(x), time)
        low = self.attention(self.down2(self.pool(high), time))
        low = F.interpolate(low, scale_factor=2, mode="nearest")
        return self.out(F.silu(self.norm(self.up(torch.cat([low, high], dim=1), time))))


class Detector(nn.Module):
    """A feature pyramid and a head that is shared by its levels (Lin et al., RetinaNet)."""

    def __init__(self, width: int = 16, anchors: int = 3, classes: int = 4) -> None:
        super().__init__()
        self.classes = classes
        self.c3, self.c4 = nn.Conv2d(3, 12, 3, 2, 1), nn.Conv2d(12, 20, 3, 2, 1)
        self.bn3, self.bn4 = nn.BatchNorm2d(12), nn.BatchNorm2d(20)
        self.lateral3, self.lateral4 = nn.Conv2d(12, width, 1), nn.Conv2d(20, width, 1)
        self.cls, self.box = (self._head(width, anchors * size) for size in (classes, 4))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        c3 = F.relu(self.bn3(self.c3(x)))
        c4 = F.relu(self.bn4(self.c4(c3)))
        p4 = self.lateral4(c4)
        p3 = self.lateral3(c3) + F.interpolate(p4, size=c3.shape[-2:])
        scores = [self._flat(self.cls(p), self.classes) for p in (p3, p4)]
        boxes = [self._flat(self.box(p), 4) for p in (p3, p4)]
        return torch.cat(scores, dim=1).sigmoid(), torch.cat(boxes, dim=1)

    @staticmethod
    def _head(width: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, outputs, 3, padding=1))

    @staticmethod
    def _flat(x: Tensor, per_anchor: int) -> Tensor:
        b, _, h, w = x.shape
        return x.view(b, -1, per_anchor, h, w).permute(0, 3, 4, 1, 2).reshape(b, -1, per_anchor)


class KANLinear(nn.Module):
    """A spline on every edge over a fixed grid (Liu et al.), of first order, beside a SiLU."""

    def __init__(self, inputs: int, outputs: int, grid: int = 6) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.register_buffer("grid", torch.linspace(-2, 2, grid).expand(inputs, -1).contiguous())
        self.base = nn.Parameter(torch.randn(outputs, inputs) / inputs**0.5)
        self.spline = nn.Parameter(torch.randn(outputs, inputs, grid) / inputs)

    def forward(self, x: Tensor) -> Tensor:
        bases = F.relu(1 - (x[..., None] - self.grid).abs() / 0.8)
        flat = bases.view(x.shape[0], -1)
        return F.linear(F.silu(x), self.base) + F.linear(flat, self.spline.view(self.outputs, -1))


class KAN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([KANLinear(5, 16), KANLinear(16, 12), KANLinear(12, 2)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Expert(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.gate, self.down = nn.Linear(width, hidden), nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Experts(nn.Module):
    """The best two of several experts for each token; each expert sees only its own tokens."""

    def __init__(self, width: int = 16, count: int = 3) -> None:
        super().__init__()
        self.inp, self.router, self.norm = nn.Linear(6, width), nn.Linear(width, count, bias=False), nn.LayerNorm(width)
        self.experts = nn.ModuleList([Expert(width, 24) for _ in range(count)])
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x).flatten(0, 1)
        h = self.norm(x)
        weights, chosen = self.router(h).softmax(-1).topk(2, dim=-1)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            token, place = (chosen == number).nonzero(as_tuple=True)
            out = out.index_add(0, token, expert(h[token]) * weights[token, place, None])
        return self.head(x + out)


class SequenceTagger(nn.Module):
    """Convolutions over characters, a two-way LSTM, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.conv = nn.Embedding(30, 12), nn.Conv1d(12, 16, 3, padding=1)
        self.lstm, self.head = nn.LSTM(16, 10, num_layers=2, bidirectional=True, batch_first=True), nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(self.embed(x).transpose(1, 2))).transpose(1, 2)
        return self.head(self.lstm(x)[0])


class Encoder(nn.Module):
    """PyTorch's own encoder layers, the norm after each sum."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 4, 48, batch_first=True, dropout=0.0)
        self.embed, self.encoder = nn.Embedding(30, width), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x)).mean(1))


def letters() -> tuple[Tensor, ...]:
    return (torch.arange(14).view(2, 7) * 5 % 30,)


NETWORKS = {
    "gcn": (GCN, graph),
    "sage": (SAGE, graph),
    "gat": (GAT, graph),
    "gin": (GIN, graph),
    "fno": (FNO, lambda: (_noise(2, 2, 16, 16),)),
    "diffusion_unet": (DiffusionUNet, lambda: (_noise(2, 3, 16, 16), torch.tensor([3, 40]))),
    "detector": (Detector, lambda: (_noise(2, 3, 32, 32),)),
    "kan": (KAN, lambda: (_noise(7, 5),)),
    "experts": (Experts, lambda: (_noise(2, 9, 6),)),
    "tagger": (SequenceTagger, letters),
    "torch_encoder": (Encoder, letters),
}
