"""The contract as protoc describes it: descriptors, and the comment of each of their parts."""

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message as ProtobufMessage
from grpc_tools import protoc

Field = descriptor_pb2.FieldDescriptorProto
PACKAGE = "hoc.cus.policies.v1"
RULES = "buf/validate/validate.proto"
#: RPCs that the client itself calls, or has a form of its own for.
OWN = {
    "Begin", "Commit", "Rollback", "Prepare", "Savepoint", "RollbackToSavepoint", "ReleaseSavepoint", "Hold", "Execute",
}  # fmt: skip


@dataclass(frozen=True)
class Message:
    """A message of the contract, with the comments of its fields."""

    name: str
    comment: str
    fields: list[tuple[Field, str]]

    def field(self, name: str) -> Field | None:
        return next((one for one, _ in self.fields if one.name == name), None)


@dataclass(frozen=True)
class Enum:
    """An enum of the contract: short names, numbers, comments, options."""

    name: str
    comment: str
    prefix: str
    values: list[tuple[descriptor_pb2.EnumValueDescriptorProto, str]]


@dataclass(frozen=True)
class Rpc:
    """An RPC of the contract."""

    name: str
    comment: str
    request: Message
    response: Message
    stream: bool
    path: str
    options: descriptor_pb2.MethodOptions


@dataclass(frozen=True)
class Service:
    """A service of the contract, by its name without the word Service."""

    name: str
    comment: str
    rpcs: list[Rpc]


@dataclass
class Contract:
    """All of it."""

    #: The descriptors without comments, serialized.
    bare: bytes = b""
    messages: dict[str, Message] = field(default_factory=dict)
    enums: dict[str, Enum] = field(default_factory=dict)
    services: list[Service] = field(default_factory=list)
    pool: descriptor_pool.DescriptorPool = field(default_factory=descriptor_pool.DescriptorPool)

    def option(self, options: ProtobufMessage, kind: str, name: str) -> Any:
        """An option of the contract's own, which protobuf keeps as bytes where it does not know it."""
        known = message_factory.GetMessageClass(self.pool.FindMessageTypeByName(f"google.protobuf.{kind}"))
        extension = self.pool.FindExtensionByName(f"{PACKAGE}.{name}")
        message_factory.GetMessageClassesForFiles([extension.file.name], self.pool)
        return known.FromString(options.SerializeToString()).Extensions[extension]

    def message(self, type_name: str) -> Message | None:
        """A message of the contract's own; None of a well-known type."""
        return self.messages.get(type_name.removeprefix(f".{PACKAGE}."))

    def reachable(self) -> Iterator[Message]:
        """Messages that a caller holds in hands: answers, and what lies in answers and requests, parts first."""
        seen: set[str] = set()

        def walk(message: Message) -> Iterator[Message]:
            if message.name in seen or message.name == "StringList":
                return
            seen.add(message.name)
            yield from parts(message)
            yield message

        def parts(message: Message) -> Iterator[Message]:
            for one, _ in message.fields:
                inner = self.message(one.type_name)
                if inner:
                    yield from walk(inner)

        for service in self.services:
            for rpc in service.rpcs:
                patch = patch_of(self, rpc.request)
                for one, _ in rpc.request.fields:
                    inner = self.message(one.type_name)
                    if inner:
                        yield from (parts(inner) if inner is patch else walk(inner))
                yield from walk(rpc.response)


def patch_of(contract: Contract, request: Message) -> Message | None:
    """What an update changes, where the request has a field mask."""
    updates = request.field("updates")
    return contract.message(updates.type_name) if updates and request.field("update_mask") else None


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _comment(text: str) -> str:
    return "\n".join(line.removeprefix(" ").rstrip() for line in text.strip("\n").split("\n"))


def _describe(protos: Path) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "set"
        sources = sorted(str(path.relative_to(protos)) for path in protos.glob("hoc/**/*.proto"))
        arguments = [
            "protoc", f"-I{protos}", f"-I{files('grpc_tools') / '_proto'}", f"--descriptor_set_out={target}",
            "--include_imports", "--include_source_info", *sources, "google/rpc/status.proto", "google/rpc/error_details.proto",
        ]  # fmt: skip
        if protoc.main(arguments) != 0:
            raise RuntimeError(f"protoc refuses the contract in {protos}")
        return target.read_bytes()


def _without_rules(described: descriptor_pb2.FileDescriptorSet) -> None:
    """Takes out the rules of fields, whose declaration a program may have from the package `protovalidate` already."""
    for file in described.file:
        kept = [name for name in file.dependency if name != RULES]
        del file.dependency[:]
        file.dependency.extend(kept)
        for message in file.message_type:
            for part in (*message.field, *message.oneof_decl):
                if not part.HasField("options"):
                    continue
                part.options.DiscardUnknownFields()
                if not part.options.ByteSize():
                    part.ClearField("options")
    files = [file for file in described.file if file.name != RULES]
    del described.file[:]
    described.file.extend(files)


def read_contract(protos: Path) -> Contract:
    """Reads the contract of a folder."""
    described = descriptor_pb2.FileDescriptorSet.FromString(_describe(protos))
    _without_rules(described)
    contract = Contract()
    services: list[tuple[descriptor_pb2.ServiceDescriptorProto, dict[tuple[int, ...], str], int]] = []
    for file in described.file:
        comments = {tuple(at.path): _comment(at.leading_comments) for at in file.source_code_info.location}
        file.ClearField("source_code_info")
        contract.pool.AddSerializedFile(file.SerializeToString())
        if file.package != PACKAGE:
            continue
        for number, message in enumerate(file.message_type):
            fields = [(one, comments.get((4, number, 2, at), "")) for at, one in enumerate(message.field)]
            contract.messages[message.name] = Message(message.name, comments.get((4, number), ""), fields)
        for number, enum in enumerate(file.enum_type):
            prefix = enum.value[0].name.removesuffix("UNSPECIFIED")
            values = [(one, comments.get((5, number, 2, at), "")) for at, one in enumerate(enum.value)]
            contract.enums[enum.name] = Enum(enum.name, comments.get((5, number), ""), prefix, values)
        services += [(service, comments, number) for number, service in enumerate(file.service)]
    for service, comments, number in services:
        rpcs = [
            Rpc(
                rpc.name,
                comments.get((6, number, 2, at), ""),
                contract.messages[rpc.input_type.rpartition(".")[2]],
                contract.messages[rpc.output_type.rpartition(".")[2]],
                rpc.server_streaming,
                f"/{PACKAGE}.{service.name}/{rpc.name}",
                rpc.options,
            )
            for at, rpc in enumerate(service.method)
            if service.name != "TransactionService" or rpc.name not in OWN
        ]
        contract.services.append(Service(service.name.removesuffix("Service"), comments.get((6, number), ""), rpcs))
    contract.services.sort(key=lambda service: service.name)
    contract.bare = described.SerializeToString(deterministic=True)
    return contract
