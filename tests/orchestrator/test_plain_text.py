"""Nothing that somebody else wrote steers a terminal: not in a campaign's files, not in a job's output."""

import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from coppice.orchestrator.cli.commands import COMMANDS
from coppice.orchestrator.cli.output import PlainConsole, plain_table
from coppice.orchestrator.plain_text import plain, plain_line
from tests.support.folders import campaign_folder
from tests.support.waiting import LIMIT_S

HOSTILE = {
    "title": ("a\x1b]0;owned\x07b", "ab"),
    "title, ended by a string terminator": ("a\x1b]2;owned\x1b\\b", "ab"),
    "title that never ends": ("a\x1b]0;owned\nb", "a\nb"),
    "clipboard": ("a\x1b]52;c;b3duZWQ=\x07b", "ab"),
    "link": ("\x1b]8;;https://x\x1b\\a\x1b]8;;\x1b\\b", "ab"),
    "device control": ("a\x1bP1;2|owned\x1b\\b", "ab"),
    "screen cleared": ("a\x1b[2J\x1b[Hb", "ab"),
    "colour": ("\x1b[38;5;196ma\x1b[0mb", "ab"),
    "reset": ("a\x1bcb", "ab"),
    "another character set": ("a\x1b(0b", "ab"),
    "cut off": ("ab\x1b", "ab"),
    "cut off in a sequence": ("ab\x1b[", "ab"),
    "eight bits": ("a\x9b2J\x9d0;owned\x9cb", "ab"),
    "backspace, bell, return": ("a\b\x07\r\x0b\x0c\x00\x7fb", "ab"),
    "text that runs backwards": ("a\u202e\u2066\u200f\u061cb", "ab"),
    "bytes that are no text": ("a\udcffb", "a?b"),
    "lines and tabs": ("a\n\tb", "a\n\tb"),
    "text": ("é 漢字 🙂 [red]:100:[/]", "é 漢字 🙂 [red]:100:[/]"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_plain(name: str) -> None:
    given, expected = HOSTILE[name]
    assert plain(given) == expected
    assert plain_line(given) == expected.replace("\n", " ").replace("\t", " ")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_console_shows_nothing_else(name: str) -> None:
    """Also in a table, whose cells are folded, and on a terminal, where Rich's own colours stay."""
    shown, own = io.StringIO(), io.StringIO()
    for file, text, kind in ((shown, HOSTILE[name][0], PlainConsole), (own, "ab", Console)):
        out = kind(file=file, force_terminal=True, width=40, highlight=False)
        out.print(Text(text), style="bold")
        out.print(plain_table(["name", "state"], [[text, text]]))
    colours = re.compile(r"\x1b\[[\d;]*m")
    if "\n" not in HOSTILE[name][0]:
        assert colours.findall(shown.getvalue()) == colours.findall(own.getvalue())
    rest = colours.sub("", shown.getvalue())
    assert rest == plain(rest)


WEAPON = "\x1b]0;owned\x07\x1b[2J\x1b[31m\r\b\x9b2J\u202e[red]x"


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign in which every text that may be shown is a weapon."""
    folder = campaign_folder(tmp_path_factory.mktemp("weapons"), compare=False)
    trial = folder / "trials" / "t0001"
    events = [json.loads(line) for line in (trial / "events.jsonl").read_text().splitlines()][:-1]
    changed = {"metrics": {"widths": {WEAPON: 3}}, "structural": {"element": WEAPON, "reason": WEAPON}}
    for event in events:
        event.update(changed.get(event["type"], {}))
    head = {"trial": "t0001", "time": 1.0, "epoch": 3, "step": 3}
    events += [{**head, "type": "skipped", "reason": WEAPON}, {**head, "type": WEAPON, WEAPON: WEAPON},
               {**head, "type": "checkpoint", "path": WEAPON},
               {**head, "type": "status", "status": "failed", "error": WEAPON, "traceback": f"{WEAPON}\n{WEAPON}"}]
    (trial / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    params = json.loads((trial / "params.json").read_text())
    (trial / "params.json").write_text(json.dumps({**params, "params": {WEAPON: WEAPON, **params["params"]}}))
    lock = json.loads((folder / "campaign.lock.json").read_text())
    lock["versions"][WEAPON] = WEAPON
    (folder / "campaign.lock.json").write_text(json.dumps(lock))
    return folder


def _on_a_terminal(*words: str) -> str:
    """What a command writes to a terminal, standard output and error."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "coppice", *words]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "160"}
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL, env=environment) as process:
        os.close(theirs)
        written = b""
        try:
            while part := os.read(ours, 65536):
                written += part
        except OSError:  # the other end is closed
            pass
        process.wait(LIMIT_S)
    os.close(ours)
    return written.decode()


SHOWN = {"status": ("status", "FOLDER"), "logs": ("logs", "FOLDER", "t0001"), "top": ("top", "FOLDER"),
         "an error": ("logs", "FOLDER", WEAPON), "an error in a file": ("plan", "FOLDER/bad.yaml")}  # fmt: skip

VISIBLE = {"top": "", "an error in a file": "U+001B"}


@pytest.mark.parametrize("name", SHOWN)
def test_no_command_hands_it_to_the_terminal(name: str, campaign: Path) -> None:
    assert SHOWN[name][0] in COMMANDS
    (campaign / "bad.yaml").write_text(f"name: x\n{json.dumps(WEAPON)}: 1\ntask: {json.dumps(WEAPON)}\n")
    written = _on_a_terminal(*(word.replace("FOLDER", str(campaign)) for word in SHOWN[name]))
    assert VISIBLE.get(name, "[red]x") in written, "what can be shown of it is shown"
    for part in ("\x1b]", "\x1b[2J", "\x1b[31m", "\r\b", "\b", "\x07", "\x9b", "\u202e"):
        assert part not in written


def test_nor_the_report_to_the_browser(campaign: Path) -> None:
    subprocess.run([sys.executable, "-m", "coppice", "report", str(campaign)], check=True, capture_output=True)
    page = (campaign / "report.html").read_text()
    assert page == plain(page) and "[red]x" in page
