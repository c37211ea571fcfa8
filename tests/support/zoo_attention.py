"""Networks with attention, in plain torch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TorchAttention(nn.Module):
    """A pre-norm block around `nn.MultiheadAttention`."""

    def __init__(self, width: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Linear(12, width)
        self.norm1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        y = self.norm1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        x = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return self.head(x.mean(1))


class FusedAttention(nn.Module):
    """Queries, keys and values from one projection, attention written out by hand."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, width // num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        weights = ((q @ k.transpose(-2, -1)) * self.head_dim**-0.5).softmax(-1)
        y = (weights @ v).transpose(1, 2).reshape(batch, tokens, self.num_heads * self.head_dim)
        return self.proj(y)


class SeparateAttention(nn.Module):
    """Three projections; fewer key-value heads than query heads is grouped-query attention."""

    def __init__(self, width: int, num_heads: int, num_kv_heads: int | None) -> None:
        super().__init__()
        self.h, self.kvh, self.hd = num_heads, num_kv_heads or num_heads, width // num_heads
        self.q = nn.Linear(width, self.h * self.hd)
        self.k = nn.Linear(width, self.kvh * self.hd)
        self.v = nn.Linear(width, self.kvh * self.hd)
        self.o = nn.Linear(self.h * self.hd, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q = self.q(x).view(batch, tokens, self.h, self.hd).transpose(1, 2)
        k = self.k(x).view(batch, tokens, self.kvh, self.hd).transpose(1, 2)
        v = self.v(x).view(batch, tokens, self.kvh, self.hd).transpose(1, 2)
        if self.kvh != self.h:
            repeat = self.h // self.kvh
            k = k[:, :, None].expand(batch, self.kvh, repeat, tokens, self.hd).reshape(batch, self.h, tokens, self.hd)
            v = v[:, :, None].expand(batch, self.kvh, repeat, tokens, self.hd).reshape(batch, self.h, tokens, self.hd)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.o(y.transpose(1, 2).reshape(batch, tokens, self.h * self.hd))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, attention: nn.Module, hidden: int) -> None:
        super().__init__()
        self.n1, self.attn, self.n2 = nn.LayerNorm(width), attention, nn.LayerNorm(width)
        self.f1, self.f2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.n1(x))
        return x + self.f2(F.gelu(self.f1(self.n2(x))))


class ViT(nn.Module):
    """Patches, a class token and position embeddings as bare parameters."""

    def __init__(self, width: int, num_heads: int, depth: int, fused: bool, num_kv_heads: int | None) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, 8, 8)
        self.cls = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.pos = nn.Parameter(torch.randn(1, 17, width) * 0.02)

        def attention() -> nn.Module:
            return FusedAttention(width, num_heads) if fused else SeparateAttention(width, num_heads, num_kv_heads)

        self.blocks = nn.Sequential(*[Block(width, attention(), 2 * width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.pos
        return self.head(self.norm(self.blocks(x))[:, 0])


class TiedLM(nn.Module):
    """A language model whose head is its embedding."""

    def __init__(self, vocabulary: int, width: int, num_heads: int) -> None:
        super().__init__()
        self.tok = nn.Embedding(vocabulary, width)
        self.blk = Block(width, FusedAttention(width, num_heads), 2 * width)
        self.norm = nn.LayerNorm(width)
        self.lm = nn.Linear(width, vocabulary, bias=False)
        self.lm.weight = self.tok.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.lm(self.norm(self.blk(self.tok(tokens))))
