"""Progress while a campaign runs, on standard error: a table that is redrawn on a terminal, plain lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from coppice.orchestrator.cli.output import messages
from coppice.orchestrator.cli.tables import status_table, summary
from coppice.orchestrator.folder.events import FINAL
from coppice.orchestrator.operations.status import TrialStatus
from coppice.orchestrator.plain_text import plain_line
from coppice.orchestrator.report.numbers import metric_value, plural, whole

LEAST_S = 0.5
"""Redraw at most this often."""
QUIET_S = 60.0
"""Say something at least this often where lines are printed."""


class Progress:
    """Shows the statuses it is called with; a context manager."""

    def __init__(
        self, metric: str, mode: str, *, screen: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._metric, self._mode, self._clock = metric, mode, clock
        self._screen = screen or messages()
        self._live: Live | None = None
        self._states: dict[str, str] = {}
        self._shown_at = -1e9
        self.statuses: tuple[TrialStatus, ...] = ()

    def __enter__(self) -> Progress:
        if self._screen.is_terminal:
            self._live = Live(console=self._screen, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, statuses: Sequence[TrialStatus]) -> None:
        """Show how the trials stand now."""
        self.statuses = tuple(statuses)
        now = self._clock()
        if self._live is not None:
            if now - self._shown_at >= LEAST_S:
                self._shown_at = now
                self._live.update(self._table(), refresh=True)
            return
        lines = [line for s in statuses if (line := self._change(s))]
        if not lines and now - self._shown_at >= QUIET_S:
            lines = [self._summary()]
        if lines:
            self._shown_at = now
            for line in lines:
                self._screen.print(Text(plain_line(line)), soft_wrap=True)

    def say(self, sentence: str) -> None:
        """A sentence above the table, or between the lines."""
        self._screen.print(Text(sentence), soft_wrap=True)

    def _summary(self) -> str:
        return summary(self.statuses, self._metric, self._mode)

    def _table(self) -> Group:
        room = max(4, self._screen.height - 6)
        order = sorted(self.statuses, key=lambda s: (s.state != "running", s.state == "waiting", self._rank(s)))
        more = len(order) - room
        rest = [Text(f"... and {plural(more, 'more trial')}", style="dim")] if more > 0 else []
        return Group(status_table(order[:room], self._metric), *rest, Text(self._summary(), style="bold"))

    def _rank(self, status: TrialStatus) -> float:
        value = status.best
        return float("inf") if value is None else -value if self._mode == "max" else value

    def _change(self, status: TrialStatus) -> str:
        """A line when the trial has started or ended since the last call."""
        before, self._states[status.id] = self._states.get(status.id), status.state
        if status.state in (before, "waiting"):
            return ""
        if status.state not in FINAL:
            return f"{status.id} {status.state}" if before is None or before == "waiting" else ""
        value = f", {self._metric} {metric_value(self._metric, status.metrics.get(self._metric))}" if status.metrics else ""
        size = f", {whole(status.parameters)} parameters" if status.parameters is not None else ""
        why = f": {status.reason}" if status.reason else ""
        return f"{status.id} {status.state} after epoch {status.epoch}{value}{size}{why}"
