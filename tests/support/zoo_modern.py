"""ConvNeXt, windowed attention, rotary positions and sparse experts, in plain torch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvNeXtBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand, self.project = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.project(F.gelu(self.expand(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, 4)
        self.blocks = nn.Sequential(ConvNeXtBlock(width), ConvNeXtBlock(width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.stem(x)).mean((2, 3))))


class WindowAttention(nn.Module):
    """Attention in shifted windows, with a learned bias for each head and relative position."""

    def __init__(self, width: int, num_heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.num_heads, self.window, self.shift = num_heads, window, shift
        self.scale = (width // num_heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, num_heads))
        grid = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        relative = grid[:, :, None] - grid[:, None, :] + window - 1
        self.register_buffer("index", relative[0] * (2 * window - 1) + relative[1], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        size = self.window
        x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = x.view(batch, height // size, size, width // size, size, channels).permute(0, 1, 3, 2, 4, 5)
        x = x.reshape(-1, size * size, channels)
        q, k, v = self.qkv(x).reshape(x.shape[0], size * size, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        weights = q @ k.transpose(-2, -1) * self.scale
        weights = weights + self.bias[self.index.view(-1)].view(size * size, size * size, -1).permute(2, 0, 1)
        x = (weights.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = self.proj(x).view(batch, height // size, width // size, size, size, channels).permute(0, 1, 3, 2, 4, 5)
        return torch.roll(x.reshape(batch, height, width, channels), (self.shift, self.shift), (1, 2))


class Swin(nn.Module):
    def __init__(self, width: int, num_heads: int, window: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, 4)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attns = nn.ModuleList(WindowAttention(width, num_heads, window, s) for s in (0, window // 2))
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.merge = nn.Linear(4 * width, 2 * width, bias=False)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).permute(0, 2, 3, 1)
        for norm, attn in zip(self.norms, self.attns, strict=True):
            x = x + attn(norm(x))
        x = x + self.fc2(F.gelu(self.fc1(x)))
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return self.head(self.merge(x).mean((1, 2)))


class RMSNorm(nn.Module):
    """Written out by hand, as language models do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class RotaryAttention(nn.Module):
    """Causal attention with rotary positions over the halves of each head."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, width // num_heads
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.o = nn.Linear(width, width, bias=False)

    def rotate(self, x: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        speed = 1e4 ** (-torch.arange(half, device=x.device) / half)
        angle = torch.arange(x.shape[-2], device=x.device)[:, None] * speed
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = (p(x).view(batch, tokens, self.num_heads, self.head_dim).transpose(1, 2) for p in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(self.rotate(q), self.rotate(k), v, is_causal=True)
        return self.o(y.transpose(1, 2).reshape(batch, tokens, -1))


class GPT(nn.Module):
    """Tied embeddings, RMS norms, rotary positions and a gated feed-forward layer."""

    def __init__(self, vocabulary: int, width: int, num_heads: int) -> None:
        super().__init__()
        self.tok = nn.Embedding(vocabulary, width)
        self.n1, self.attn, self.n2 = RMSNorm(width), RotaryAttention(width, num_heads), RMSNorm(width)
        self.gate, self.up = nn.Linear(width, 40, bias=False), nn.Linear(width, 40, bias=False)
        self.down, self.norm = nn.Linear(40, width, bias=False), RMSNorm(width)
        self.lm = nn.Linear(width, vocabulary, bias=False)
        self.lm.weight = self.tok.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tok(tokens)
        x = x + self.attn(self.n1(x))
        y = self.n2(x)
        x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return self.lm(self.norm(x))


class MixtureOfExperts(nn.Module):
    """Each token goes to its best two experts, found by the data."""

    def __init__(self, width: int, hidden: int, num_experts: int) -> None:
        super().__init__()
        self.embed = nn.Linear(width, 16)
        self.router = nn.Linear(16, num_experts)
        experts = [nn.Sequential(nn.Linear(16, hidden), nn.ReLU(), nn.Linear(hidden, 16)) for _ in range(num_experts)]
        self.experts = nn.ModuleList(experts)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        flat = x.reshape(-1, x.shape[-1])
        weights, chosen = self.router(flat).softmax(-1).topk(2, -1)
        out = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            rows, places = torch.where(chosen == number)
            if rows.numel():
                out[rows] += weights[rows, places, None] * expert(flat[rows])
        return self.head(x + out.view_as(x))
