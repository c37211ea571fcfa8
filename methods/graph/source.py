"""Where in the user's code an operator was called."""

from __future__ import annotations

import ast
import linecache
import os
import sys
from functools import lru_cache
from types import CodeType, FrameType

import torch

_TORCH = os.path.dirname(torch.__file__) + os.sep
_HERE = os.path.dirname(__file__) + os.sep


def user_frame() -> FrameType | None:
    """The innermost frame that belongs neither to torch nor to this package."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not is_user(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


@lru_cache(maxsize=4096)
def is_user(path: str) -> bool:
    """Whether a Python file belongs neither to torch nor to this package's own tracing."""
    return not path.startswith((_TORCH, _HERE))


def caller() -> str:
    """`file:line` of the user's code that runs now."""
    frame = user_frame()
    return "an unknown line" if frame is None else f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"


def _called(expression: ast.Call) -> str:
    function = expression.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def called() -> str:
    """The name of the function or method that the user's code calls now; empty where it is no call, or cannot be read."""
    frame = user_frame()
    expression = None if frame is None else _cached_expression(frame.f_code, frame.f_lasti)
    return _called(expression) if isinstance(expression, ast.Call) else ""


def scaled_by_size() -> bool:
    """Whether what runs now is torch's own attention with its own scale, 1 / sqrt(head size), for all that the code shows."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_HERE):
        frame = frame.f_back
    while frame is not None and not is_user(frame.f_code.co_filename):
        if frame.f_code.co_name == "multi_head_attention_forward":
            return True
        frame = frame.f_back
    expression = None if frame is None else _cached_expression(frame.f_code, frame.f_lasti)
    if not isinstance(expression, ast.Call) or _called(expression) != "scaled_dot_product_attention":
        return False
    known = {"query", "key", "value", "attn_mask", "dropout_p", "is_causal", "enable_gqa"}
    return len(expression.args) <= 6 and all(k.arg in known for k in expression.keywords)


@lru_cache(maxsize=4096)
def _cached_expression(code: CodeType, instruction: int) -> ast.AST | None:
    return _expression(code, instruction)


def _expression(code: CodeType, instruction: int) -> ast.AST | None:
    """The expression that an instruction belongs to, where its source can be read."""
    positions = list(code.co_positions())
    if instruction // 2 >= len(positions):
        return None
    first, last, start, end = positions[instruction // 2]
    if first is None or last is None or start is None or end is None:
        return None
    lines = [line.encode() for line in linecache.getlines(code.co_filename)[first - 1 : last]]
    if len(lines) != last - first + 1:
        return None
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][start:]
    try:
        return ast.parse(f"({b''.join(lines).decode()})", mode="eval").body
    except SyntaxError:
        return None
