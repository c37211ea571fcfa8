"""What every model of a campaign file is, and the numbers and truth values in it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError


class Model(BaseModel):
    """Frozen, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, use_attribute_docstrings=True)


def _refused(expected: str, value: Any, hint: str = "") -> PydanticCustomError:
    return PydanticCustomError("of_our_own", "{problem}", {"problem": f"must be {expected}, but is {value!r}{hint}"})


def _instead(value: Any) -> str:
    """What to write instead of a text that holds a number."""
    try:
        return f"; write {float(value):g}, without quotes" if isinstance(value, str) else ""
    except ValueError:
        return ""


def _whole(value: Any) -> int:
    """A whole number; 3.0 is 3, but no truth value and no text is a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or (isinstance(value, float) and not value.is_integer()):
        between = f"; write {int(value)} or {int(value) + 1}" if isinstance(value, float) and abs(value) < 1e15 else ""
        raise _refused("a whole number", value, between or _instead(value))
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _refused("a number", value, _instead(value))
    return float(value)


def _truth(value: Any) -> bool:
    if not isinstance(value, bool):
        word = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(str(value).lower())
        raise _refused("true or false", value, f"; write {word}" if word else "")
    return value


def not_empty(value: Any) -> Any:
    """The value, unless it is an empty text."""
    if isinstance(value, str) and not value.strip():
        raise _refused("a path", value, "; leave it out for the default, or write . for this folder")
    return value


def like_an_amount(value: Any) -> Any:
    """The value, if it can be an amount; a truth value would pass for 0 or 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, dict)):
        raise _refused("an amount", value, "; write a number")
    return value


Whole = Annotated[int, BeforeValidator(_whole)]
Number = Annotated[float, BeforeValidator(_number)]
Truth = Annotated[bool, BeforeValidator(_truth)]
