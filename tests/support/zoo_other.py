"""Networks with unusual control flow, parameters or recurrence, in plain torch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerScale(nn.Module):
    """A bare parameter scales the branch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.gamma = nn.Parameter(torch.full((channels,), 0.1))
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.head = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.gamma.view(1, -1, 1, 1) * self.conv(x)
        return self.head(x.mean((2, 3)))


class DataDependent(nn.Module):
    """Which layers run depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(12, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        if x.sum() > 0:
            x = self.b(x)
        return self.c(x)


class ShapeLoop(nn.Module):
    """A Python loop over time."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Linear(12, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor | int = 0
        for step in range(x.shape[1]):
            hidden = hidden + torch.tanh(self.a(x[:, step]))
        return self.c(hidden)


class Recurrent(nn.Module):
    """LSTM between two linear layers; the last state is classified."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.a = nn.Linear(12, 8)
        self.rnn = nn.LSTM(8, hidden, batch_first=True)
        self.c = nn.Linear(hidden, 4)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.rnn(self.a(x))
        return self.c(states[:, -1])


class Shared(nn.Module):
    """The same convolution twice, and a dictionary as output."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.head = nn.Linear(channels, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)
        x = F.relu(self.conv(F.relu(self.conv(x))))
        return {"logits": self.head(x.mean((2, 3)))}
