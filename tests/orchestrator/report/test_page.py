"""The page is whole, needs nothing but itself, says what the folder says, and runs in a real browser."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from coppice.orchestrator.report import write_report
from coppice.orchestrator.report.data import Change, ReportData, TrialData
from coppice.orchestrator.report.gather import gather
from coppice.orchestrator.report.page import render
from tests.support.browser import dump
from tests.support.folders import campaign_folder

VOID = {"meta", "link", "br"}


class Balanced(HTMLParser):
    """Fails on tags that are not closed in order; collects texts, and addresses that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, (tag, self.open[-3:])

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def parsed(page: str) -> Balanced:
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    return parser


def test_the_page_is_whole_and_needs_nothing_else(tmp_path: Path) -> None:
    path = write_report(campaign_folder(tmp_path))
    assert path == tmp_path / "made-up" / "report.html"
    found = parsed(path.read_text())
    assert found.fetched == ["data:,"]
    assert "url(" not in path.read_text() and "@import" not in path.read_text()


def test_it_says_what_the_folder_says(tmp_path: Path) -> None:
    folder = campaign_folder(tmp_path)
    page = render(gather(folder))
    best = gather(folder).best
    assert best is not None
    text = " ".join("".join(parsed(page).texts).split())
    assert f"{100 * (best.last('val_accuracy') or 0):.2f} % validation accuracy" in text
    assert f"{int(best.last('parameters') or 0):,} parameters" in text
    assert "10 of 12 trials finished, 1 failed" in text
    assert "static, same final size, from scratch" in text and "big, never changed" in text
    assert "adaptations/0/grow/where" in text and "round_robin" in text
    assert "& <lower> the learning rate" in text
    assert page.count('class="panel"') == 7
    assert len(re.findall(r'class="mark[ "]', page)) >= 14
    assert page.count('class="grew"') > 10 and page.count('class="shrank"') > 3


def test_hostile_names_stay_text() -> None:
    bad = "<img src=x onerror=alert(1)>\"'&"
    change = Change(1, bad, bad, 1, 2, 10, 20, 0.0, False, bad)
    epochs = ({"epoch": 1.0, "val_accuracy": 0.5, "parameters": 10.0}, {"epoch": 2.0, "val_accuracy": 0.6, "parameters": 20.0})
    widths = ({bad: 1}, {bad: 2})
    trials = [TrialData(f"{bad}{i}", None, bad, bad, {bad: f"{bad}{i}"}, epochs, widths, (change,), ((1, bad),)) for i in (1, 2)]
    page = render(ReportData(bad, bad, "val_accuracy", "max", bad, ((bad, bad),), tuple(trials)))
    assert "<img" not in page
    parsed(page)


@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_a_campaign_that_has_hardly_begun_has_a_page(tmp_path: Path, epochs: int) -> None:
    page = render(gather(campaign_folder(tmp_path, trials=1, epochs=epochs, compare=False)))
    parsed(page)
    assert ("No trial has reported" in page) == (epochs < 2)


def test_all_failed_says_so() -> None:
    data = ReportData("c", "runs/c", "val_accuracy", "max", "", (), (TrialData("00000", None, "failed", "ValueError: broken"),))
    page = render(data)
    assert "No trial has reported validation accuracy yet. 1 trial failed" in page
    assert "ValueError: broken" in page


@pytest.mark.slow
def test_a_real_browser_shows_it_without_complaint(tmp_path: Path) -> None:
    path = write_report(campaign_folder(tmp_path))
    click = "document.querySelectorAll('table.sortable th button')[2].click();"
    path.write_text(path.read_text().replace("</script>", f"{click}</script>"))
    dom, console = dump(path, tmp_path / "profile")
    assert console == []
    assert dom.count("<svg") > 10
    assert 'aria-sort="descending"' in dom
    table = dom[dom.index('class="sortable"'):]
    counts = [int(n.replace(",", "")) for n in re.findall(r"<tr.*?<td.*?<td.*?<td[^>]*>([\d,]+)</td>", table)]
    assert len(counts) == 14
    assert counts == sorted(counts, reverse=True)
