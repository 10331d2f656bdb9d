"""What the original drivers answered on a known database: `test/golden/database.json` explains itself."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pg8000.dbapi

GOLDEN = Path(os.environ["POLICY_SIDECAR_GOLDEN"])


def read(name: str) -> Any:
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


def database(url: str) -> Any:
    """A connection of the tests' own to a database."""
    at = urlsplit(url)
    connection = pg8000.dbapi.connect(
        at.username, host=at.hostname, port=at.port, password=at.password, database=at.path.removeprefix("/")
    )
    connection.autocommit = True
    return connection


class Reader:
    """Reads golden values as of a moment."""

    def __init__(self, now: datetime) -> None:
        self._now = now

    def value(self, given: Any) -> Any:
        if isinstance(given, list):
            return [self.value(one) for one in given]
        if not isinstance(given, dict):
            return given
        if "$now_minus_seconds" in given:
            return self._now - timedelta(microseconds=round(given["$now_minus_seconds"] * 1_000_000))
        if "$hour_minus_hours" in given:
            hour = self._now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=given["$hour_minus_hours"])
            return hour + timedelta(microseconds=round(given.get("plus_seconds", 0) * 1_000_000))
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


def _cell(reader: Reader, given: Any) -> Any:
    value = reader.value(given)
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, (Decimal, float)) else value


def fill(connection: Any, reader: Reader) -> None:
    """Puts the fixture's rows in place of what is there."""
    fixture = read("database.json")["fixture"]
    cursor = connection.cursor()
    # The rows refer to each other in any order.
    cursor.execute("select conrelid::regclass::text, conname from pg_constraint where contype = 'f'")
    for table, name in cursor.fetchall():
        cursor.execute(f'alter table {table} drop constraint "{name}"')
    cursor.execute(f"truncate {', '.join(fixture)} cascade")
    for table, rows in fixture.items():
        cursor.execute(f"alter table {table} disable trigger user")
        for row in rows:
            names = ", ".join(f'"{name}"' for name in row)
            values = ", ".join(
                "'null'::jsonb" if given == {"$json": None} else f'made."{name}"' for name, given in row.items()
            )
            cursor.execute(
                f"insert into {table} ({names}) select {values} from json_populate_record(null::{table}, %s::json) made",
                (json.dumps({name: _cell(reader, given) for name, given in row.items()}),),
            )


def cases() -> Iterator[dict[str, Any]]:
    """The cases that change nothing."""
    for case in read("database.json")["cases"]:
        if "sequence" not in case:
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


def equal(ours: Any, theirs: Any) -> bool:
    """Whether an answer is the original's; what is new with each call is not compared."""
    if theirs in ("<timestamp>", "<uuid>", "<id>", "<size>"):
        return ours is not None
    if isinstance(theirs, float) or isinstance(ours, float):
        kinds = (int, float)
        return isinstance(ours, kinds) and isinstance(theirs, kinds) and (
            abs(ours - theirs) <= 1e-9 or ours != ours and theirs != theirs or ours == theirs
        )
    if isinstance(theirs, list):
        return isinstance(ours, list) and len(ours) == len(theirs) and all(map(equal, ours, theirs))
    if isinstance(theirs, dict):
        return isinstance(ours, dict) and set(ours) == set(theirs) and all(equal(ours[name], theirs[name]) for name in theirs)
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
