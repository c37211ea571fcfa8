"""More networks of kinds that people use, in plain torch: `MORE[name] = (factory, example inputs)`."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.support.zoo_modern import GPT, ConvNeXt, MixtureOfExperts, Swin

Inputs = tuple[Tensor, ...]


def _conv(before: int, after: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after))


class UNet(nn.Module):
    """Skip concatenations and transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.middle = _conv(3, 8), _conv(8, 12), _conv(12, 16)
        self.up2, self.dec2 = nn.ConvTranspose2d(16, 12, 2, 2), _conv(24, 12)
        self.up1, self.dec1 = nn.ConvTranspose2d(12, 8, 2, 2), _conv(16, 8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = F.relu(self.down1(x))
        two = F.relu(self.down2(F.max_pool2d(one, 2)))
        x = F.relu(self.middle(F.max_pool2d(two, 2)))
        x = F.relu(self.dec2(torch.cat([self.up2(x), two], 1)))
        x = F.relu(self.dec1(torch.cat([self.up1(x), one], 1)))
        return self.head(x)


class InvertedResidual(nn.Module):
    """MobileNetV2 block; with `gate`, MobileNetV3 and EfficientNet."""

    def __init__(self, before: int, after: int, stride: int, activation: nn.Module, gate: type[nn.Module] | None) -> None:
        super().__init__()
        hidden = 4 * before
        self.expand, self.depthwise = _conv(before, hidden, 1), _conv(hidden, hidden, 3, stride, hidden)
        self.project, self.activation = _conv(hidden, after, 1), activation
        self.squeeze = nn.Conv2d(hidden, 8, 1) if gate else None
        self.excite = nn.Conv2d(8, hidden, 1) if gate else None
        self.gate = gate() if gate else None
        self.residual = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.depthwise(self.activation(self.expand(x))))
        if self.gate is not None:
            y = y * self.gate(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        y = self.project(y)
        return x + y if self.residual else y


class Mobile(nn.Module):
    def __init__(self, activation: nn.Module, gate: type[nn.Module] | None) -> None:
        super().__init__()
        self.stem = _conv(3, 8, 3, 2)
        self.blocks = nn.Sequential(
            InvertedResidual(8, 8, 1, activation, gate),
            InvertedResidual(8, 12, 2, activation, gate),
            InvertedResidual(12, 12, 1, activation, gate),
        )
        self.last, self.activation = _conv(12, 24, 1), activation
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(24, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.last(self.blocks(self.activation(self.stem(x)))))
        return self.classifier(x.mean((2, 3)))


class Inception(nn.Module):
    """Four branches, concatenated; an auxiliary head while training."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, 8)
        self.a, self.b1, self.b2 = _conv(8, 6, 1), _conv(8, 4, 1), _conv(4, 8)
        self.c1, self.c2, self.d = _conv(8, 4, 1), _conv(4, 6, 5), _conv(8, 5, 1)
        self.aux, self.fc = nn.Linear(25, 10), nn.Linear(25, 10)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = F.relu(self.stem(x))
        branches = [self.a(x), self.b2(F.relu(self.b1(x))), self.c2(F.relu(self.c1(x))), self.d(F.max_pool2d(x, 3, 1, 1))]
        x = F.relu(torch.cat(branches, 1)).mean((2, 3))
        return (self.fc(x), self.aux(x)) if self.training else self.fc(x)


class Siamese(nn.Module):
    """One encoder for two inputs; the difference is classified."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 12, 3, 2), nn.ReLU())
        self.embed, self.head = nn.Linear(12, 16), nn.Linear(16, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        x, y = (self.embed(self.encoder(i).mean((2, 3))) for i in (a, b))
        return self.head((x - y).abs())


class RecurrentHead(nn.Module):
    """Two layers of GRU, in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(12, 6, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


def unet() -> nn.Module:
    return UNet()


def mobilenet_v2() -> nn.Module:
    return Mobile(nn.ReLU6(), None)


def mobilenet_v3() -> nn.Module:
    return Mobile(nn.Hardswish(), nn.Hardsigmoid)


def efficientnet() -> nn.Module:
    return Mobile(nn.SiLU(), nn.Sigmoid)


def convnext() -> nn.Module:
    return ConvNeXt(8)


def swin() -> nn.Module:
    return Swin(16, 2, 4)


def gpt_rope() -> nn.Module:
    return GPT(50, 32, 4)


def moe() -> nn.Module:
    return MixtureOfExperts(12, 8, 3)


def inception() -> nn.Module:
    return Inception()


def siamese() -> nn.Module:
    return Siamese()


def gru_head() -> nn.Module:
    return RecurrentHead()


def _image() -> Inputs:
    return (torch.randn(2, 3, 32, 32),)


def _pair() -> Inputs:
    return (torch.randn(2, 3, 16, 16), torch.randn(2, 3, 16, 16))


def _sequence() -> Inputs:
    return (torch.randn(2, 5, 12),)


def _tokens() -> Inputs:
    return (torch.randint(0, 50, (2, 7)),)


MORE: dict[str, tuple[Callable[..., nn.Module], Callable[[], Inputs]]] = {
    "unet": (unet, _image),
    "mobilenet_v2": (mobilenet_v2, _image),
    "mobilenet_v3": (mobilenet_v3, _image),
    "efficientnet": (efficientnet, _image),
    "convnext": (convnext, _image),
    "swin": (swin, _image),
    "gpt_rope": (gpt_rope, _tokens),
    "moe": (moe, _sequence),
    "inception": (inception, _image),
    "siamese": (siamese, _pair),
    "gru_head": (gru_head, _sequence),
}
