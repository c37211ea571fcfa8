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
    while frame is not None:
        path = frame.f_code.co_filename
        if not path.startswith((_TORCH, _HERE)):
            return frame
        frame = frame.f_back
    return None


def caller() -> str:
    """`file:line` of the user's code that runs now."""
    frame = user_frame()
    return "an unknown line" if frame is None else f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"


def written_numbers() -> frozenset[int]:
    """The whole numbers greater than one that are written in the call or the subscript that the user's code runs now.

    The number of pieces of a `chunk` is no size and is left out.
    """
    frame = user_frame()
    return frozenset() if frame is None else _numbers(frame.f_code, frame.f_lasti)


@lru_cache(maxsize=4096)
def _numbers(code: CodeType, instruction: int) -> frozenset[int]:
    expression = _expression(code, instruction)
    if isinstance(expression, ast.Subscript):
        parts: list[ast.AST] = list(ast.walk(expression.slice))
    elif isinstance(expression, ast.Call):
        if isinstance(expression.func, ast.Attribute) and expression.func.attr in ("chunk", "tensor_split"):
            return frozenset()
        parts = [n for argument in expression.args for n in _literals(argument)]
        parts += [n for keyword in expression.keywords for n in _literals(keyword.value)]
    else:
        return frozenset()
    return frozenset(n.value for n in parts if isinstance(n, ast.Constant) and type(n.value) is int and n.value > 1)


def _literals(node: ast.AST) -> list[ast.AST]:
    if isinstance(node, (ast.Tuple, ast.List)):
        return [n for element in node.elts for n in _literals(element)]
    return [node]


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
