"""Rules for numbers that somebody types: rows of a table, what-if inputs of a request. The manifest carries them."""

from __future__ import annotations

import re

from models.errors import BadInput
from models.nouns import JSON

_NUMBER = re.compile(r"[+-]?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,3})?")
"""What a spreadsheet writes. Python would also take 1_000, nan and digits of other scripts."""


def checked(rule: JSON, value: object, *, where: str) -> float:
    """The number, if the rule of its column allows it.

    A rule has `name` and either `allowed` (a list of numbers) or `range` [low, high] with `whole`.

    Raises: BadInput, naming the column and the place; the value is never quoted.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise BadInput(f"{rule['name']} is not a number", where=where)
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise BadInput(f"{rule['name']} is not a number", where=where)
    try:
        number = float(value)
    except OverflowError:
        raise BadInput(f"{rule['name']} is not a number", where=where) from None
    if "allowed" in rule:
        if number not in rule["allowed"]:
            options = ", ".join(f"{option:g}" for option in rule["allowed"])
            raise BadInput(f"{rule['name']} is not one of {options}", where=where)
        return number
    low, high = rule["range"]
    if not low <= number <= high:
        raise BadInput(f"{rule['name']} is not between {low:g} and {high:g}", where=where)
    if rule.get("whole") and not number.is_integer():
        raise BadInput(f"{rule['name']} is not a whole number", where=where)
    return number
