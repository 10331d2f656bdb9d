"""The tables of a database as the golden file sees them."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from decimal import Decimal
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import pg8000.dbapi
from golden import Reader, comparable, equal, read

#: How old, in seconds, the moment may be that the rows were made of.
_FRESH = 15.0

#: Makes the tables what the fixture holds, those that are not any more: without triggers, and with keys checked at the end. A
#: table is as it was while it has as many rows, and none of a later transaction.
_SETUP = """
create temp table made (of regclass, columns json, content json);
create temp table kept (of regclass, held bigint, latest bigint);

create function pg_temp.fill(into_table regclass, columns json, content json) returns void language plpgsql as $$
begin
  execute (select format('insert into %s (%s) select %s from json_populate_recordset(null::%s, $1) made', into_table,
    string_agg(format('%I', of->>0), ', '), string_agg(coalesce(of->>1, format('made.%I', of->>0)), ', '), into_table)
    from json_array_elements(columns) of) using content;
end $$;

create function pg_temp.state() returns setof pg_temp.kept language plpgsql as $$
begin
  return query execute (select string_agg(format(
    'select %L::regclass, count(*), coalesce(max(xmin::text::bigint), 0) from %s', oid::regclass, oid::regclass), ' union all ')
    from pg_class where relkind = 'r' and relnamespace in ('public'::regnamespace, 'policy'::regnamespace,
      'm10_recovery'::regnamespace) and relname not like 'mikro_orm%');
end $$;

create function pg_temp.restore() returns void language plpgsql as $$
declare
  stale regclass[];
  named regclass;
begin
  with recursive other as (
    select state.of from pg_temp.state() state left join kept using (of)
      where (state.held, state.latest) is distinct from (kept.held, kept.latest)
    union select conrelid::regclass from pg_constraint join other on confrelid = other.of
  ) select array_agg(of) into stale from other;
  if stale is null then return; end if;
  set constraints all deferred;
  for named in select distinct tgrelid::regclass from pg_trigger where not tgisinternal and tgrelid = any (stale) loop
    execute format('alter table %s disable trigger user', named);
  end loop;
  foreach named in array stale loop
    execute format('delete from %s', named);
  end loop;
  perform pg_temp.fill(of, columns, content) from made where of = any (stale);
  set constraints all immediate;
  for named in select distinct tgrelid::regclass from pg_trigger where not tgisinternal and tgrelid = any (stale) loop
    execute format('alter table %s enable trigger user', named);
  end loop;
  delete from kept;
  insert into kept select * from pg_temp.state();
end $$;

do $$
declare
  one record;
begin
  for one in select conrelid::regclass as of, conname from pg_constraint where contype = 'f' and not condeferrable loop
    execute format('alter table %s alter constraint %I deferrable', one.of, one.conname);
  end loop;
  -- Generated keys are above all that the fixture names.
  for one in select table_schema, table_name, column_name from information_schema.columns
    where column_default like 'nextval%' or is_identity = 'YES' loop
    perform setval(pg_get_serial_sequence(format('%I.%I', one.table_schema, one.table_name), one.column_name), 1000);
  end loop;
end $$;
"""


@cache
def fixture() -> dict[str, list[dict[str, Any]]]:
    """The rows that each case begins with."""
    tables: dict[str, list[dict[str, Any]]] = read("database.json")["fixture"]
    return tables


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, (Decimal, float)) else value


def _groups(table: str, rows: list[dict[str, Any]], reader: Reader) -> list[dict[str, Any]]:
    """Rows by what they leave out, which takes its default, and by where they have the JSON null."""
    groups: dict[str, dict[str, Any]] = {}
    for row in rows:
        columns = [[name, "'null'::jsonb" if given == {"$json": None} else None] for name, given in row.items()]
        group = groups.setdefault(json.dumps(columns), {"table": table, "columns": columns, "rows": []})
        group["rows"].append({name: _cell(reader.value(given)) for name, given in row.items()})
    return list(groups.values())


class Tables:
    """What the tests do to a database themselves."""

    def __init__(self, url: str) -> None:
        at = urlsplit(url)
        self._connection = pg8000.dbapi.connect(
            at.username, host=at.hostname, port=at.port, password=at.password, database=at.path.removeprefix("/")
        )
        self._connection.autocommit = True
        self._run(_SETUP)
        self._reader = Reader(datetime.fromtimestamp(0, timezone.utc))

    def _run(self, text: str, *parameters: Any) -> Any:
        cursor = self._connection.cursor()
        cursor.execute(text, parameters)
        return cursor

    def now(self) -> datetime:
        """The database's clock."""
        found: datetime = self._run("select clock_timestamp()").fetchone()[0]
        return found.astimezone(timezone.utc)

    @property
    def fresh(self) -> bool:
        """Whether the moment that the rows were made of is not long past."""
        return (datetime.now(timezone.utc) - self._reader.now).total_seconds() <= _FRESH

    def restore(self) -> Reader:
        """Makes the tables a fresh copy of the fixture; what reads values as of the moment that it was made."""
        if not self.fresh:
            now = self.now()
            groups = [group for table, rows in fixture().items() for group in _groups(table, rows, Reader(now))]
            self._run("delete from made")
            self._run(
                "insert into made select (one->>'table')::regclass, one->'columns', one->'rows'"
                " from json_array_elements(%s::json) one",
                json.dumps(groups),
            )
            self._run("delete from kept")
            self._reader = Reader(now)
        self._run("select pg_temp.restore()")
        return Reader(self._reader.now)

    def insert(self, table: str, rows: list[dict[str, Any]], reader: Reader) -> None:
        for one in _groups(table, rows, reader):
            columns, content = json.dumps(one["columns"]), json.dumps(one["rows"])
            self._run("select pg_temp.fill(%s::regclass, %s::json, %s::json)", table, columns, content)

    def clear(self, table: str) -> None:
        self._run(f"delete from {table}")

    def set(self, table: str, values: dict[str, Any], where: dict[str, Any], reader: Reader) -> None:
        columns = _groups(table, [values], reader)[0]["columns"]
        given = ", ".join(f'"{name}" = {cast or f"""made."{name}" """}' for name, cast in columns)
        met = " and ".join(f't."{name}" is not distinct from met."{name}"' for name in where) or "true"
        parts = [json.dumps({name: _cell(reader.value(one)) for name, one in part.items()}) for part in (values, where)]
        record = f"json_populate_record(null::{table}, %s::json)"
        self._run(f"update {table} t set {given} from {record} made, {record} met where {met}", *parts)

    def dump(self, table: str, columns: list[str] | None, where: dict[str, Any], reader: Reader) -> list[dict[str, Any]]:
        """Rows, in no order."""
        cursor = self._run(f"select * from {table}")
        names = [one[0] for one in cursor.description]
        rows = [dict(zip(names, comparable(list(row)), strict=True)) for row in cursor.fetchall()]
        met = {name: reader.value(given) for name, given in where.items()}
        return [
            {name: row[name] for name in columns or names}
            for row in rows
            if all(equal(row[name], wanted) for name, wanted in met.items())
        ]

    def close(self) -> None:
        """Leaves no rows behind."""
        self._run("delete from made")
        self._run("delete from kept")
        self._run("select pg_temp.restore()")
        self._connection.close()
