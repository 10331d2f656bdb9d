"""The sidecar's calls as a Python author would serve them: grpc.aio on uvloop, a pool of ten connections.

The argument says what stands before PostgreSQL: asyncpg, sqlalchemy-core (the bench's statements as text) or
sqlalchemy-orm (mapped classes).
"""

import asyncio
import json
import os
import re
import signal
import sys
from datetime import datetime
from uuid import UUID, uuid4

import asyncpg
import grpc
import uvloop
from google.protobuf.struct_pb2 import Value
from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "build", "stubs"))
from hoc.cus.policies.v1 import policy_engine_pb2 as pb  # noqa: E402
from hoc.cus.policies.v1 import policy_engine_pb2_grpc as stubs  # noqa: E402

POINT, LIST, WRITE = (os.environ[f"SQL_{name}"] for name in ("POINT", "LIST", "WRITE"))
POOL = 10


def fill(target: Value, json_value) -> None:
    match json_value:
        case None:
            target.null_value = 0
        case bool():
            target.bool_value = json_value
        case int() | float():
            target.number_value = json_value
        case str():
            target.string_value = json_value
        case list():
            target.list_value.SetInParent()
            for each in json_value:
                fill(target.list_value.values.add(), each)
        case dict():
            target.struct_value.SetInParent()
            for key, each in json_value.items():
                fill(target.struct_value.fields[key], each)


def message(id, policy_name, violation_type, severity, description, evidence, agent_id, tenant_id, action_attempted,
            routed_to_governor, governor_action, detected_at) -> pb.PolicyViolation:
    found = pb.PolicyViolation(
        id=str(id),
        policy_name=policy_name,
        violation_type=violation_type,
        severity=severity,
        description=description,
        agent_id=agent_id,
        tenant_id=tenant_id,
        action_attempted=action_attempted,
        routed_to_governor=routed_to_governor,
        governor_action=governor_action,
    )
    fill(found.evidence, evidence)
    found.detected_at.FromDatetime(detected_at)
    return found


class Asyncpg:
    def __init__(self, pool: asyncpg.Pool):
        self.pool = pool

    @classmethod
    async def open(cls, url: str) -> "Asyncpg":
        async def prepare(connection: asyncpg.Connection) -> None:
            await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")

        return cls(await asyncpg.create_pool(url, min_size=1, max_size=POOL, init=prepare))

    async def point(self, id: UUID):
        row = await self.pool.fetchrow(POINT, id)
        return message(*row) if row else None

    async def list(self, limit: int):
        return [message(*row) for row in await self.pool.fetch(LIST, limit)]

    async def write(self, *values) -> UUID:
        return await self.pool.fetchval(WRITE, *values)


def engine(url: str):
    return create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"), pool_size=POOL, max_overflow=0)


def named(statement: str):
    """The statement with `:p1` for `$1`."""
    return text(re.sub(r"\$(\d+)", r":p\1", statement))


class Core:
    def __init__(self, url: str):
        self.sessions = async_sessionmaker(engine(url))
        self.statements = {name: named(name) for name in (POINT, LIST, WRITE)}

    @classmethod
    async def open(cls, url: str) -> "Core":
        store = cls(url)
        async with store.sessions() as session:
            await session.execute(text("select 1"))
        return store

    def run(self, session, statement: str, *values):
        return session.execute(self.statements[statement], {f"p{at}": value for at, value in enumerate(values, 1)})

    async def point(self, id: UUID):
        async with self.sessions() as session:
            row = (await self.run(session, POINT, id)).one_or_none()
        return message(*row) if row else None

    async def list(self, limit: int):
        async with self.sessions() as session:
            rows = (await self.run(session, LIST, limit)).all()
        return [message(*row) for row in rows]

    async def write(self, *values) -> UUID:
        async with self.sessions() as session:
            id = (await self.run(session, WRITE, *values)).scalar_one()
            await session.commit()
        return id


class Base(DeclarativeBase):
    pass


class Violation(Base):
    __tablename__ = "violations"
    __table_args__ = {"schema": "policy"}
    id: Mapped[UUID] = mapped_column(primary_key=True)
    policy_name: Mapped[str | None]
    violation_type: Mapped[str]
    severity: Mapped[float]
    description: Mapped[str]
    evidence: Mapped[dict] = mapped_column(JSONB)
    agent_id: Mapped[str | None]
    tenant_id: Mapped[str | None]
    action_attempted: Mapped[str | None]
    routed_to_governor: Mapped[bool]
    governor_action: Mapped[str | None]
    detected_at: Mapped[datetime]

    def message(self) -> pb.PolicyViolation:
        return message(
            self.id, self.policy_name, self.violation_type, self.severity, self.description, self.evidence, self.agent_id,
            self.tenant_id, self.action_attempted, self.routed_to_governor, self.governor_action, self.detected_at,
        )


class Provenance(Base):
    __tablename__ = "policy_provenance"
    __table_args__ = {"schema": "policy"}
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    policy_id: Mapped[UUID]
    policy_type: Mapped[str]
    action: Mapped[str]
    changed_by: Mapped[str]
    policy_version: Mapped[str]
    reason: Mapped[str | None]


class Orm:
    def __init__(self, url: str):
        self.sessions = async_sessionmaker(engine(url), expire_on_commit=False)

    @classmethod
    async def open(cls, url: str) -> "Orm":
        store = cls(url)
        async with store.sessions() as session:
            await session.execute(text("select 1"))
        return store

    async def point(self, id: UUID):
        async with self.sessions() as session:
            found = await session.get(Violation, id)
        return found.message() if found else None

    async def list(self, limit: int):
        newest = select(Violation).order_by(Violation.detected_at.desc(), Violation.id.desc()).limit(limit)
        async with self.sessions() as session:
            found = (await session.scalars(newest)).all()
        return [each.message() for each in found]

    async def write(self, policy_id, policy_type, action, changed_by, policy_version, reason) -> UUID:
        entry = Provenance(
            policy_id=policy_id, policy_type=policy_type, action=action, changed_by=changed_by,
            policy_version=policy_version, reason=reason,
        )
        async with self.sessions() as session:
            session.add(entry)
            await session.commit()
        return entry.id


class Servicer(stubs.PolicyEngineServiceServicer):
    def __init__(self, store):
        self.store = store

    async def uuid(self, context, field: str, given: str) -> UUID:
        try:
            return UUID(given)
        except ValueError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{field} must be a UUID")

    async def FetchViolationById(self, request, context):
        id = await self.uuid(context, "violation_id", request.violation_id)
        return pb.FetchViolationByIdResponse(violation=await self.store.point(id))

    async def FetchViolations(self, request, context):
        limit = request.limit if request.HasField("limit") else 100
        return pb.FetchViolationsResponse(violations=await self.store.list(limit))

    async def InsertProvenance(self, request, context):
        id = await self.store.write(
            await self.uuid(context, "policy_id", request.policy_id),
            request.policy_type,
            request.action,
            request.changed_by,
            request.policy_version,
            request.reason if request.HasField("reason") else None,
        )
        return pb.InsertProvenanceResponse(provenance_id=str(id), rows_affected=1)


async def main(kind: str) -> None:
    store = await {"asyncpg": Asyncpg, "sqlalchemy-core": Core, "sqlalchemy-orm": Orm}[kind].open(os.environ["DATABASE_URL"])
    server = grpc.aio.server()
    stubs.add_PolicyEngineServiceServicer_to_server(Servicer(store), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"gRPC 127.0.0.1:{port}", flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(0)


uvloop.run(main(sys.argv[1]))
