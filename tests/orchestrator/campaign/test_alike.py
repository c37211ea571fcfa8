"""When failures alike end a campaign, and when they are the fault of the values that were tried."""

import pytest

from coppice.orchestrator.campaign.alike import ALIKE_LATER, AlikeFailures

TYPE = "TypeError: build() got an unexpected keyword argument 'x'"
NAN = "coppice.orchestrator.trial.errors.NonFiniteLoss: the training loss became nan in epoch {}"
GOOD = "good"


@pytest.mark.parametrize(
    ("endings", "spent"),
    [
        ([TYPE] * 9, 3),
        ([f"ValueError: trial t000{n} at 0x7f{n}a has shape ({n}, 64)" for n in range(9)], 3),
        ([f"RuntimeError: of no. 1\n  traceback {name}" for name in "abcdefg"], 3),
        ([TYPE, "KeyError: other"] * 5, None),
        ([TYPE, TYPE, GOOD, TYPE, TYPE, TYPE, TYPE], None),
        ([GOOD, *[TYPE] * 20], 1 + ALIKE_LATER),
        ([NAN.format(n) for n in range(20)], ALIKE_LATER),
        (["ArithmeticError: metric val_loss must be finite, but it is nan in epoch 1"] * 9, None),
    ],
)
def test_how_many_trials_are_spent(endings: list[str], spent: int | None) -> None:
    alike = AlikeFailures()
    for number, ending in enumerate(endings, 1):
        alike.good() if ending == GOOD else alike.failed(ending)
        if alike.reason:
            assert number == spent and alike.reason == ending
            return
    assert spent is None


def test_while_it_is_about_to_become_clear_no_more_trials_run_than_may_be_lost() -> None:
    alike = AlikeFailures()
    rooms = [alike.room]
    for _ in range(2):
        alike.failed(TYPE)
        rooms.append(alike.room)
    assert rooms == [None, 2, 1]
    alike.good()
    assert alike.room is None
    alike.failed(NAN.format(1))
    assert alike.room is None, "other values may do better"


def test_others_that_do_better_speak_for_the_campaign() -> None:
    alike = AlikeFailures()
    for _ in range(5):
        alike.failed(TYPE, others_do_better=True)
    assert not alike.reason
