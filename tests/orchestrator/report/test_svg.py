"""Ticks are round and inside, scales map their ends, text is escaped, numbers read well."""

from itertools import pairwise

import pytest

from coppice.orchestrator.report.numbers import duration, metric_difference, metric_name, metric_value, plural, short, whole
from coppice.orchestrator.report.svg import Frame, Scale, axes, drawing, log_ticks, nice_ticks, spanning, tag, text


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.9, 0.93), (3, 1234), (-5, 5), (1e-6, 2e-6), (1e12, 9e12), (0, 60)])
def test_nice_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert 3 <= len(ticks) <= 7
    assert all(low - 1e-9 <= t <= high + 1e-9 for t in ticks)
    steps = {f"{b - a:.6g}" for a, b in pairwise(ticks)}
    assert len(steps) == 1
    assert f"{ticks[1] - ticks[0]:e}"[:4].rstrip("0e.-") in {"1", "2", "2.5", "5"}


def test_an_empty_span_still_has_a_tick_and_a_scale() -> None:
    assert nice_ticks(3, 3) == [3]
    scale = spanning([7.0], (0, 100))
    assert scale.low < 7 < scale.high
    assert scale(7) == 50


@pytest.mark.parametrize(("low", "high"), [(5e3, 5e4), (10, 1e7), (9e3, 1.1e4), (1, 3)])
def test_log_ticks_are_inside(low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    assert 2 <= len(ticks) <= 8
    assert all(low * 0.999 <= t <= high * 1.001 for t in ticks)


def test_a_logarithmic_scale_is_one() -> None:
    scale = Scale(1, 100, 0, 200, log=True)
    assert [scale(1), scale(10), scale(100)] == pytest.approx([0, 100, 200])


def test_everything_that_comes_from_outside_is_escaped() -> None:
    assert text("<b>&", 1, 2) == '<text x="1" y="2">&lt;b&gt;&amp;</text>'
    assert tag("g", title='a"b<') == '<g title="a&quot;b&lt;"/>'
    frame = Frame(100, 100)
    x = Scale(0, 1, *frame.xs)
    assert "<script" not in drawing(frame, "<script>", axes(frame, x, x, labels=("<script>", "y"), formats=(str, str)))


@pytest.mark.parametrize(("value", "expected"), [
    (0, "0"), (7, "7"), (950, "950"), (999.9, "1000"), (12345, "12.3k"), (999_999, "1M"), (4.57e6, "4.57M"), (2e15, "2P"),
    (-1500, "-1.50k"), (0.25, "0.250"), (None, "\N{EN DASH}"), (float("nan"), "\N{EN DASH}"), (2.5, "2.50")])
def test_short(value: float | None, expected: str) -> None:
    assert short(value) == expected


def test_words() -> None:
    assert whole(1234567.0) == "1,234,567"
    assert metric_value("val_accuracy", 0.97123) == "97.12 %"
    assert metric_value("val_loss", 0.123456) == "0.1235"
    assert metric_difference("val_accuracy", -0.0123) == "-1.23 points"
    assert metric_name("val_accuracy") == "validation accuracy"
    assert metric_name("parameters") == "parameters"
    assert [duration(s) for s in (1.25, 42, 200, 7500)] == ["1.2 s", "42 s", "3 min 20 s", "2 h 05 min"]
    assert [plural(1, "trial"), plural(1200, "trial")] == ["1 trial", "1,200 trials"]
