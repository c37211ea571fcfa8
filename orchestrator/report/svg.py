"""The little SVG that the report needs: elements, scales with nice ticks, axes. Nothing here knows what is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape


def tag(name: str, *children: str, **attributes: object) -> str:
    """An element. Attribute names: `class_` for class, `_` for `-`; values are escaped; children must be markup already."""
    parts = []
    for key, value in attributes.items():
        if value is None:
            continue
        shown = _number(value) if isinstance(value, float) else str(value)
        parts.append(f' {key.rstrip("_").replace("_", "-")}="{escape(shown)}"')
    opening = f"<{name}{''.join(parts)}"
    return f"{opening}>{''.join(children)}</{name}>" if children else f"{opening}/>"


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def text(content: str, x: float, y: float, **attributes: object) -> str:
    """A text at (x, y); its content is escaped."""
    return tag("text", escape(content), x=x, y=y, **attributes)


def titled(content: str) -> str:
    """The tooltip of the element around it."""
    return tag("title", escape(content))


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most `most` + 1 round values (1, 2, 2.5 or 5 times a power of ten) inside [low, high]."""
    if not high > low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next((m * power for m in (1, 2, 2.5, 5, 10) if (high - low) / (m * power) <= most), 10 * power)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values for a logarithmic axis: powers of ten, with 2 and 5 (or more) between them where there is room."""
    for leads in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [m * 10.0**p for p in powers for m in leads if low * (1 - 1e-9) <= m * 10.0**p <= high * (1 + 1e-9)]
        if len(ticks) >= 3:
            return ticks[:: math.ceil(len(ticks) / most)]
    return nice_ticks(low, high, 4)


@dataclass(frozen=True)
class Scale:
    """Maps data in [low, high] to pixels in [start, end], linearly or by the logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        low, high, at = (math.log(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return self.start + (self.end - self.start) * ((at - low) / (high - low) if high > low else 0.5)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values inside the scale."""
        return log_ticks(self.low, self.high, most) if self.log else nice_ticks(self.low, self.high, most)


def spanning(
    values: Sequence[float], ends: tuple[float, float], *, margin: float = 0.06, log: bool = False, floor: float | None = None
) -> Scale:
    """A scale over the values with a margin (a part of their span) on both sides; never below `floor`, never empty."""
    low, high = min(values), max(values)
    start, end = ends
    if log:
        widen = max((high / low) ** margin, 1.05)
        return Scale(low / widen, high * widen, start, end, True)
    widen = margin * (high - low) or 0.05 * abs(high) or 0.5
    return Scale(low - widen if floor is None else max(floor, low - widen), high + widen, start, end)


@dataclass(frozen=True)
class Frame:
    """Size of a chart and of the space around its plotting area, in pixels."""

    width: float
    height: float
    left: float = 58
    right: float = 14
    top: float = 12
    bottom: float = 42

    @property
    def xs(self) -> tuple[float, float]:
        """Left and right edge of the plotting area."""
        return self.left, self.width - self.right

    @property
    def ys(self) -> tuple[float, float]:
        """Bottom and top edge of the plotting area (values grow upwards)."""
        return self.height - self.bottom, self.top


Format = Callable[[float], str]


def axes(
    frame: Frame, x: Scale, y: Scale, *, labels: tuple[str, str], formats: tuple[Format, Format], most: tuple[int, int] = (6, 5)
) -> str:
    """Horizontal grid lines, tick labels and axis labels (with units, by the caller); no tick where its label is empty."""
    (left, right), (bottom, top) = frame.xs, frame.ys
    parts = []
    for value in (v for v in y.ticks(most[1]) if formats[1](v)):
        parts.append(tag("line", class_="grid", x1=left, x2=right, y1=y(value), y2=y(value)))
        parts.append(text(formats[1](value), left - 7, y(value) + 3.5, class_="tick", text_anchor="end"))
    for value in (v for v in x.ticks(most[0]) if formats[0](v)):
        parts.append(tag("line", class_="axis", x1=x(value), x2=x(value), y1=bottom, y2=bottom + 4))
        parts.append(text(formats[0](value), x(value), bottom + 16, class_="tick", text_anchor="middle"))
    parts.append(tag("line", class_="axis", x1=left, x2=right, y1=bottom, y2=bottom))
    if labels[0]:
        parts.append(text(labels[0], (left + right) / 2, frame.height - 6, class_="label", text_anchor="middle"))
    if labels[1]:
        middle = (top + bottom) / 2
        turned = f"rotate(-90 12 {middle:.1f})"
        parts.append(text(labels[1], 12.0, middle, class_="label", text_anchor="middle", transform=turned))
    return "".join(parts)


def drawing(frame: Frame, title: str, *content: str) -> str:
    """The `svg` element; it scales with the page, and `title` is what a screen reader says."""
    box = f"0 0 {_number(frame.width)} {_number(frame.height)}"
    return tag("svg", *content, viewBox=box, role="img", aria_label=title, style=f"max-width:{_number(frame.width)}px")


def polyline(points: Sequence[tuple[float, float]], **attributes: object) -> str:
    """An open line through the points."""
    return tag("polyline", points=" ".join(f"{_number(a)},{_number(b)}" for a, b in points), fill="none", **attributes)


def triangle(x: float, y: float, up: bool, size: float, *children: str, **attributes: object) -> str:
    """A triangle around (x, y) that points up or down."""
    height = size if up else -size
    points = f"{x:.1f},{y - height:.1f} {x - size:.1f},{y + height * 0.7:.1f} {x + size:.1f},{y + height * 0.7:.1f}"
    return tag("polygon", *children, points=points, **attributes)
