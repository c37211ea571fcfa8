"""Where in the user's code an operator was called."""

from __future__ import annotations

import ast
import linecache
import os
import sys
import textwrap
from functools import lru_cache
from types import CodeType, FrameType

import torch
from torch import nn

_TORCH = os.path.dirname(torch.__file__) + os.sep
_TAKE_SIZES = frozenset(
    ("view", "reshape", "unflatten", "split", "split_with_sizes", "narrow", "expand", "broadcast_to", "repeat", "tile",
     "repeat_interleave", "zeros", "ones", "full", "empty", "rand", "randn", "new_zeros", "new_ones", "new_full", "new_empty",
     "as_strided")
)  # fmt: skip
_HERE = os.path.dirname(__file__) + os.sep


def user_frame() -> FrameType | None:
    """The innermost frame that belongs neither to torch nor to this package."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not _is_user(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


@lru_cache(maxsize=4096)
def _is_user(path: str) -> bool:
    return not path.startswith((_TORCH, _HERE))


def caller() -> str:
    """`file:line` of the user's code that runs now."""
    frame = user_frame()
    return "an unknown line" if frame is None else f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"


def written_numbers(frame: FrameType) -> frozenset[int]:
    """The positive whole numbers that the user's code gives as sizes or bounds in the call or slice that runs now."""
    return _numbers(frame.f_code, frame.f_lasti)


@lru_cache(maxsize=4096)
def _numbers(code: CodeType, instruction: int) -> frozenset[int]:
    expression = _expression(code, instruction)
    if isinstance(expression, ast.Subscript):
        parts: list[ast.AST] = [n for s in ast.walk(expression.slice) if isinstance(s, ast.Slice) for n in ast.walk(s)]
    elif isinstance(expression, ast.Call) and _called(expression) in _TAKE_SIZES:
        parts = [n for argument in expression.args for n in _literals(argument)]
        parts += [n for keyword in expression.keywords for n in _literals(keyword.value)]
    else:
        return frozenset()
    return frozenset(n.value for n in parts if isinstance(n, ast.Constant) and type(n.value) is int and n.value > 0)


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
    while frame is not None and not _is_user(frame.f_code.co_filename):
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


def written_attributes(frame: FrameType, sizes: tuple[int, ...]) -> list[tuple[int, nn.Module, str]]:
    """Which of the sizes of a view are attributes of a module: (position, module, name).

    `x.view(n, self.heads, -1)` says so directly; a local name counts where its only assignment is such an attribute.
    """
    attributes = []
    for position, path in _attribute_paths(frame.f_code, frame.f_lasti, len(sizes)):
        owner = frame.f_locals.get(path[0])
        for name in path[1:-1]:
            owner = getattr(owner, name, None)
        if isinstance(owner, nn.Module) and owner.__dict__.get(path[-1]) == sizes[position] > 1:
            attributes.append((position, owner, path[-1]))
    return attributes


@lru_cache(maxsize=4096)
def _attribute_paths(code: CodeType, instruction: int, count: int) -> tuple[tuple[int, tuple[str, ...]], ...]:
    expression = _expression(code, instruction)
    if not isinstance(expression, ast.Call) or _called(expression) not in ("view", "reshape"):
        return ()
    arguments = [n for argument in expression.args for n in _literals(argument)]
    if len(arguments) != count:
        return ()
    paths = ((i, _path(_definition(n, code) if isinstance(n, ast.Name) else n)) for i, n in enumerate(arguments))
    return tuple((i, path) for i, path in paths if len(path) > 1)


def _path(node: ast.AST | None) -> tuple[str, ...]:
    """`self.a.b` as names; empty for anything else."""
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute):
        before = _path(node.value)
        return (*before, node.attr) if before else ()
    return ()


def _definition(name: ast.Name, code: CodeType) -> ast.AST | None:
    """The value of the only assignment to a local name."""
    values: list[ast.AST | None] = []
    for node in ast.walk(_function(code)):
        if not isinstance(node, ast.Assign):
            values += [None] if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name.id else []
            continue
        for target in node.targets:
            if isinstance(target, ast.Name) and target.id == name.id:
                values.append(node.value)
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = zip(target.elts, node.value.elts, strict=False)
                values += [v for t, v in pairs if isinstance(t, ast.Name) and t.id == name.id]
    known = [v for v in values if v is not None]
    return known[0] if len(known) == 1 and len(values) == 2 else None


@lru_cache(maxsize=256)
def _function(code: CodeType) -> ast.AST:
    """The syntax tree of a function; an empty module where its source cannot be read."""
    last = max((line for _, _, line in code.co_lines() if line is not None), default=code.co_firstlineno)
    source = "".join(linecache.getlines(code.co_filename)[code.co_firstlineno - 1 : last])
    try:
        return ast.parse(textwrap.dedent(source))
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])


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
