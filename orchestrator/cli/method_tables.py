"""Describes every method, trigger and selection, as their classes describe themselves."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coppice.methods.catalog import TABLES
from coppice.scheduler.triggers import TRIGGERS


@dataclass(frozen=True)
class Option:
    """A parameter of something: its default and its range (of a search, and of the checks)."""

    name: str
    default: Any
    low: float | None
    high: float | None
    log: bool
    choices: tuple[Any, ...]
    help: str

    def range(self) -> str:
        """The range in a few words; empty where any value goes."""
        if self.choices:
            return " | ".join(str(c) for c in self.choices)
        if self.low is None or self.high is None:
            return f">= {self.low:g}" if self.low is not None else f"<= {self.high:g}" if self.high is not None else ""
        return f"{self.low:g} .. {self.high:g}" + (", log" if self.log else "")


@dataclass(frozen=True)
class Entry:
    """One method, trigger or selection.

    Attributes:
        name: as campaign files name it.
        kind: `grow`, `prune`, `when` (triggers) or `where` (selections).
        summary: first sentence of its documentation.
        details: the rest of it.
        options: its parameters.
        levels: element levels it acts on.
        paper: where it comes from.
        preserves: whether it leaves the function unchanged; None where that does not apply.
        batch_norm: what it does about BatchNorm.
        why: what it is good for.
        cost: what one event costs.
        when: triggers that its paper uses.
        where: selections that its paper uses.
        advises: whether it says itself how many units to change (amount `advised`).
    """

    name: str
    kind: str
    summary: str
    details: str
    options: tuple[Option, ...]
    levels: tuple[str, ...] = ()
    paper: str = ""
    preserves: bool | None = None
    batch_norm: str = ""
    why: str = ""
    cost: str = ""
    when: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    advises: bool = False

    def cells(self) -> tuple[str, ...]:
        """Its row in the table of all entries."""
        keeps = {True: "kept", False: "changed", None: ""}[self.preserves]
        usual = ", ".join(self.when) + (" / " + ", ".join(self.where) if self.where else "")
        return self.name, self.kind, ", ".join(self.levels), keeps, usual, self.why or self.summary

    def in_full(self) -> str:
        """Everything about it, as text of several lines."""
        lines = [f"{self.name} ({self.kind})", "", self.summary, *([self.details] if self.details else []), ""]
        function = {True: "kept, up to rounding, with the default parameters", False: "changed", None: ""}[self.preserves]
        facts = [
            ("why", self.why), ("when", ", ".join(self.when)), ("where", ", ".join(self.where)),
            ("level", ", ".join(self.levels)), ("function", function), ("BatchNorm", self.batch_norm),
            ("cost", self.cost), ("how many", "amount `advised` is possible" if self.advises else ""),
            ("paper", self.paper),
        ]  # fmt: skip
        lines += [f"{what + ':':<12}{value}" for what, value in facts if value]
        if self.options:
            lines.append("parameters:")
        for o in self.options:
            described = "; ".join(part for part in (f"default {_short(o.default)}", o.range(), o.help) if part)
            lines.append(f"  {o.name}: {described}")
        return "\n".join(lines) + "\n"

    def to_json(self) -> dict[str, Any]:
        """Everything about it, as JSON holds it."""
        return dataclasses.asdict(self)


def _short(value: Any) -> str:
    return "required" if value is dataclasses.MISSING else f"{value:g}" if isinstance(value, float) else str(value)


def tables() -> dict[str, Mapping[str, type]]:
    """Kind -> name -> class, of everything that an adaptation of a campaign file may name."""
    return {"grow": TABLES["grow"], "prune": TABLES["prune"], "when": TRIGGERS, "where": TABLES["selection"]}


def entries() -> list[Entry]:
    """Entries of every growth method, pruning method, trigger and selection, in this order."""
    return [entry_of(kind, name, described) for kind, table in tables().items() for name, described in table.items()]


def find(name: str) -> list[Entry]:
    """Entries called `name` (a growth and a pruning method may share a name).

    Raises:
        ValueError: there is none; the message lists the nearest.
    """
    known = entries()
    matches = [e for e in known if e.name == name]
    if not matches:
        names = sorted({e.name for e in known})
        near = difflib.get_close_matches(name, names, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ValueError(f"NAME must be a method, trigger or selection, but got {name!r}{hint}; known are: {', '.join(names)}.")
    return matches


def entry_of(kind: str, name: str, described: type) -> Entry:
    """What a class says about itself."""
    summary, _, details = inspect.cleandoc(described.__doc__ or "").partition("\n\n")
    return Entry(
        name=name,
        kind=kind,
        summary=" ".join(summary.split()),
        details=details.strip(),
        options=tuple(_option(kind, f) for f in dataclasses.fields(described)) if dataclasses.is_dataclass(described) else (),
        levels=tuple(getattr(described, "levels", ())),
        paper=getattr(described, "paper", ""),
        preserves=getattr(described, "preserves", None),
        batch_norm=getattr(described, "batch_norm", ""),
        why=getattr(described, "why", ""),
        cost=getattr(described, "cost", ""),
        when=tuple(getattr(described, "when", ())),
        where=tuple(getattr(described, "where", ())),
        advises=bool(getattr(described, "advises", False)),
    )


_SPELLINGS = {"start": "from", "end": "until"}


def _option(kind: str, field: dataclasses.Field[Any]) -> Option:
    about = field.metadata.get("parameter")
    given: Mapping[str, Any] = about if isinstance(about, Mapping) else vars(about) if about is not None else {}
    default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    name = _SPELLINGS.get(field.name, field.name) if kind == "when" else field.name
    choices = tuple(given.get("choices", ()))
    return Option(name, default, given.get("low"), given.get("high"), bool(given.get("log")), choices, str(given.get("help", "")))
