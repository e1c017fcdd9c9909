"""The types of the options: what `argparse` calls with an option's text, and the error it prints where that cannot be.

    arg("--limit", type=positive)

Each raises `argparse.ArgumentTypeError` for another text. Not covered: choices, and what depends on a commons.
"""

import json
import math
from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Any


def positive(text: str) -> int:
    """A whole number from 1 on."""
    return _whole(text, 1)


def count(text: str) -> int:
    """A whole number from 0 on."""
    return _whole(text, 0)


def amount(text: str) -> float:
    """A number above 0, such as 1.5."""
    return _number(text, "a number above 0", lambda number: 0 < number < math.inf)


def seconds(text: str) -> float:
    """A time in seconds: a number, 0 or more."""
    return _number(text, "a number of seconds, 0 or more", lambda number: 0 <= number < math.inf)


def share(text: str) -> float:
    """A number from 0 to 1."""
    return _number(text, "a number from 0 to 1", lambda number: 0 <= number <= 1)


def setting(text: str) -> tuple[str, Any]:
    """NAME=VALUE of a constant: the value as JSON, or else as text."""
    name, equals, value = text.partition("=")
    if not (equals and name.isidentifier() and name.isupper()):
        raise ArgumentTypeError(f"{text!r} is not NAME=VALUE with the name of a constant")
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = value
    try:
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise ArgumentTypeError(f"{text!r} has a value that JSON cannot hold") from error
    return name, found


def comma_list(text: str | None) -> list[str] | None:
    """`a, b` as ["a", "b"]."""
    return None if text is None else [item.strip() for item in text.split(",") if item.strip()]


def _whole(text: str, least: int) -> int:
    number = int(text) if text.isdecimal() and len(text) < 10 else -1
    if number < least:
        raise ArgumentTypeError(f"{text!r} is not a whole number from {least} to 999999999")
    return number


def _number(text: str, words: str, allowed: Callable[[float], bool]) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not allowed(number):
        raise ArgumentTypeError(f"{text!r} is not {words}")
    return number
