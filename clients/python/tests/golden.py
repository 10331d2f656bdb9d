"""What the original drivers answered on a known database: `test/golden/database.json` explains itself."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from functools import reduce
from pathlib import Path
from typing import Any
from uuid import UUID

GOLDEN = Path(os.environ["POLICY_SIDECAR_GOLDEN"])


def read(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


class Reader:
    """Reads golden values as of a moment."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        #: What the steps so far answered.
        self.results: list[Any] = []

    def value(self, given: Any) -> Any:
        if isinstance(given, list):
            return [self.value(one) for one in given]
        if not isinstance(given, dict):
            return given
        if "$now_minus_seconds" in given:
            return self.now - timedelta(microseconds=round(given["$now_minus_seconds"] * 1_000_000))
        if "$hour_minus_hours" in given:
            hour = self.now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=given["$hour_minus_hours"])
            return hour + timedelta(microseconds=round(given.get("plus_seconds", 0) * 1_000_000))
        if "$hour_key" in given:
            prefix, hours = given["$hour_key"]
            return f"{prefix}{self.value({'$hour_minus_hours': hours}):%Y-%m-%d %H:%M:%S}+00"
        if "$result" in given:
            step, *path = given["$result"]
            return reduce(lambda found, key: found[key], path, self.results[step])
        if "$ts" in given:
            return datetime.fromisoformat(re.sub(r"\.(\d+)", lambda part: f".{part[1]:0<6}", given["$ts"]))
        if "$iso_text_of" in given:
            return self.value(given["$iso_text_of"]).isoformat()
        if "$whole_days_since" in given:
            return (datetime.now(timezone.utc) - self.value(given["$whole_days_since"])).days
        for name, kind in (("$decimal", Decimal), ("$bigint", int), ("$float", float)):
            if name in given:
                return kind(given[name])
        if "$json" in given:
            return given["$json"]
        return {name: self.value(one) for name, one in given.items()}


def cases(sequences: bool = False) -> Iterator[dict[str, Any]]:
    """The cases that change nothing, or those that are sequences of steps."""
    for case in read("database.json")["cases"]:
        if ("sequence" in case) is sequences:
            yield case


def comparable(value: Any) -> Any:
    """An answer in the form of the golden file."""
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [comparable(one) for one in value]
    if isinstance(value, set):
        return sorted(comparable(one) for one in value)
    if isinstance(value, dict):
        return {name: comparable(one) for name, one in value.items()}
    return value


def equal(ours: Any, theirs: Any, tolerance: float = 1e-9) -> bool:
    """Whether an answer is the original's; what is new with each call is not compared."""
    if theirs in ("<timestamp>", "<uuid>", "<id>", "<size>"):
        return ours is not None
    if isinstance(theirs, float) or isinstance(ours, float):
        kinds = (int, float)
        return isinstance(ours, kinds) and isinstance(theirs, kinds) and (
            abs(ours - theirs) <= tolerance or ours != ours and theirs != theirs or ours == theirs
        )
    if isinstance(theirs, list):
        return isinstance(ours, list) and len(ours) == len(theirs) and all(map(equal, ours, theirs))
    if isinstance(theirs, dict):
        # The original's trigger computes rates in single precision.
        return isinstance(ours, dict) and set(ours) == set(theirs) and all(
            equal(ours[name], theirs[name], 1e-6 if name == "success_rate" else 1e-9) for name in theirs
        )
    return bool(ours == theirs)


def equal_unordered(ours: Any, theirs: Any) -> bool:
    """Whether two lists have the same elements."""
    left = list(ours)
    for wanted in theirs:
        found = next((at for at, one in enumerate(left) if equal(one, wanted)), None)
        if found is None:
            return False
        del left[found]
    return not left
