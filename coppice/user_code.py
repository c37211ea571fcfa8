"""Code that is the user's own: which frames of a traceback are theirs, and what went wrong there in a sentence."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, TracebackType


def is_users(module: str, file: str) -> bool:
    """Whether a module is Python source outside the interpreter, its installed packages and this project.

    Args:
        module: its name.
        file: where it is; empty where it has none.
    """
    ours = module.split(".", 1)[0] == "coppice"
    installed = file.startswith((sys.prefix, sys.base_prefix)) or "site-packages" in file
    return file.endswith(".py") and not ours and not installed


def users_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames of an error that are in the user's own code, outermost first; a syntax error is where its line is."""
    frames = [traceback.FrameSummary(code.co_filename, line, code.co_name) for code, line in _calls(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename and is_users("", error.filename):
        frames.append(traceback.FrameSummary(error.filename, error.lineno, "<module>", line=(error.text or "").strip()))
    return frames


def _calls(step: TracebackType | None) -> Iterator[tuple[CodeType, int]]:
    while step is not None:
        name = str(step.tb_frame.f_globals.get("__name__", ""))
        if is_users(name, step.tb_frame.f_code.co_filename):
            yield step.tb_frame.f_code, step.tb_lineno
        step = step.tb_next


def what_went_wrong(error: BaseException) -> str:
    """`NameError: name 'x' is not defined (nets.py, line 3: y = x)`: an error and its place in the user's code, in a line."""
    text = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
    what = f"{type(error).__name__}{': ' + text if text else ''}"
    frames = users_frames(error)
    return f"{what} ({_place(frames[-1])})" if frames else what


def frames_text(error: BaseException) -> str:
    """The user's frames as lines, the one that raised last."""
    return "\n".join(f"  {_place(frame)}" for frame in users_frames(error))


def _place(frame: traceback.FrameSummary) -> str:
    try:
        file = str(Path(frame.filename).relative_to(Path.cwd()))
    except (OSError, ValueError):
        file = frame.filename
    inside = "" if frame.name == "<module>" else f", in {frame.name}"
    return f"{file}, line {frame.lineno}{inside}{': ' + frame.line if frame.line else ''}"
