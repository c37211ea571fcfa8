"""Growth in a network full of BatchNorm: within one epoch of each method's event the training loss is where it was, or below.

VGG11 with BatchNorm after each convolution, an eighth of its width, on handwritten digits brought to 32x32x3. One network is
trained once, for five epochs; each method then grows a copy of it, and momentum goes on.
"""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from coppice.methods.adaptation.adapt import Adaptation, AdaptResult, adapt
from coppice.methods.adaptation.candidates import Scope
from coppice.methods.catalog import GROWTH, build
from coppice.methods.companion import Companion
from coppice.methods.method import Context, Method
from coppice.methods.network import Network
from coppice.methods.networks.vgg import vgg11
from coppice.methods.selection import All
from coppice.methods.selection.amount import Amount
from coppice.methods.surgery.followers import OptimizerFollower

EPOCHS, BATCH, RATE = 5, 64, 0.02
FRACTION = 0.25


@dataclass
class Trial:
    """A network in training, and what is trained with it."""

    network: Network
    optimizer: torch.optim.SGD
    inputs: Tensor
    targets: Tensor
    generator: torch.Generator
    companion: Companion | None = None

    def copy(self) -> "Trial":
        module, optimizer = copy.deepcopy((self.network.module, self.optimizer))
        network = Network(module, self.network.factory, self.network.arguments, self.network.example_inputs)
        return Trial(network, optimizer, self.inputs, self.targets, torch.Generator().manual_seed(1))

    def batches(self, count: int) -> list[tuple[Tensor, Tensor]]:
        pairs = list(zip(self.inputs.split(BATCH), self.targets.split(BATCH), strict=True))
        return list(itertools.islice(itertools.cycle(pairs), count))

    def epoch(self) -> Iterator[float]:
        """Train for an epoch; the training loss after each third of it."""
        self.network.module.train()
        steps = torch.randperm(len(self.inputs), generator=self.generator).split(BATCH)
        for step, chosen in enumerate(steps, 1):
            self.optimizer.zero_grad()
            F.cross_entropy(self.network.module(self.inputs[chosen]), self.targets[chosen]).backward()
            if self.companion is not None:
                self.companion.after_backward(self.network)
                self.companion.before_step(self.network, self.optimizer)
            self.optimizer.step()
            if self.companion is not None:
                self.companion.after_step(self.network, self.optimizer)
            if step % (len(steps) // 3) == 0:
                yield self.loss()

    @torch.no_grad()
    def loss(self) -> float:
        self.network.module.eval()
        loss = float(F.cross_entropy(self.network.module(self.inputs), self.targets))
        self.network.module.train()
        return loss

    def grow(self, method: Method) -> AdaptResult:
        context = Context(
            self.network, self.batches, F.cross_entropy, self.generator, optimizer=self.optimizer, companion=self.companion
        )
        followers = [OptimizerFollower(self.optimizer, self.network.module), *([self.companion] if self.companion else [])]
        rules = Scope(elements=("features.*",))
        if method.advises:
            result = adapt(context, Adaptation(method, All(), Amount.read("advised"), rules), followers)
            if result.events:
                return result
        return adapt(context, Adaptation(method, All(), FRACTION, rules), followers)


@pytest.fixture(scope="module")
def trained() -> Trial:
    """All but the last epoch before the event."""
    from sklearn.datasets import load_digits

    torch.set_num_threads(1)
    digits = load_digits()
    images = torch.tensor(digits.images[:640], dtype=torch.float32).unsqueeze(1) / 16
    images = F.interpolate(images, size=(32, 32), mode="bilinear").expand(-1, 3, -1, -1).contiguous()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = vgg11(10, width=0.125)
    optimizer = torch.optim.SGD(module.parameters(), RATE, momentum=0.9, weight_decay=5e-4)
    network = Network(module, "coppice.methods.networks.vgg:vgg11", {"num_classes": 10, "width": 0.125}, (images[:2],))
    trial = Trial(network, optimizer, images, torch.tensor(digits.target[:640]), torch.Generator().manual_seed(0))
    for _ in range(EPOCHS - 1):
        list(trial.epoch())
    return trial


def losses(trial: Trial, method: Method) -> tuple[float, list[float], AdaptResult]:
    """Training loss before the event; right after it and at three times in the epoch behind it; what the event did.

    The last epoch before the event is the first one that the method's companion, where it has one, sees.
    """
    trial.companion = method.companion(trial.network)
    list(trial.epoch())
    before = trial.loss()
    result = trial.grow(method)
    return before, [trial.loss(), *trial.epoch()], result


MORE = {
    "splitting": [{"signed": True}],
    "firefly": [{"splits": False}],
    "tiny": [{"natural_step": True}],
}
FIRST = {"gradmax_opt": {"steps": 5}, "senn": {"proposals": 20, "num_batches": 1, "steps": 3}}
"""Arguments in place of the defaults, where these take long; others beside them are in `MORE`."""
ELSEWHERE = ("residual_fitting", "half_layer", "cascade")
"""Methods that refuse networks with BatchNorm, or all but graphs of neurons."""
CASES = [
    (name, arguments)
    for name, cls in GROWTH.items()
    if "channel" in cls.levels and name not in ELSEWHERE
    for arguments in [FIRST.get(name, {}), *MORE.get(name, [])]
]


@pytest.mark.parametrize(("name", "arguments"), CASES, ids=str)
def test_the_training_loss_is_back_within_one_epoch(trained, name, arguments):
    before, later, result = losses(trained.copy(), build("grow", name, arguments))
    assert len(result.events) >= 2, result.skipped
    assert min(later[1:]) <= before, (before, later)


@pytest.mark.parametrize("name", ["gradmax", "random"])
def test_zero_fan_in_is_refused(trained, name):
    result = trained.copy().grow(build("grow", name, {"zero": "fan_in"}))
    assert not result.events and "BatchNorm" in result.skipped[0]


def test_the_loss_is_not_back_after_any_growth(trained):
    """What the test above can see: new units with random weights on both sides."""
    before, later, result = losses(trained.copy(), build("grow", "random", {"zero": "none"}))
    assert len(result.events) == 8
    assert min(later) > 3 * before, (before, later)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_is_not_for_batch_norm_refuses_it(trained, name):
    result = trained.copy().grow(build("grow", name, {}))
    assert not result.events and result.skipped
