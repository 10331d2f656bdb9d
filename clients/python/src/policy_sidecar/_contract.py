"""The contract's descriptors, in a pool of their own: stubs that a user made himself are other classes and never collide."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from ._gen.facts import ONCE

PACKAGE = "hoc.cus.policies.v1"


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    described = (files(__package__) / "_gen" / "contract.binpb").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(described).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def class_of(descriptor: Descriptor) -> type[Message]:
    """The class of messages of that descriptor."""
    return message_factory.GetMessageClass(descriptor)


@cache
def message_class(full_name: str) -> Any:
    """The class of messages of that name."""
    return class_of(_pool().FindMessageTypeByName(full_name))


@dataclass(frozen=True)
class Method:
    """An RPC as it is called."""

    path: str
    request: Any
    response: Any
    #: Can be asked again as it is: it changes nothing, or the same.
    repeatable: bool
    #: Takes effect once where it is sent again with the same key, or inside a transaction with the same number.
    once: bool


@cache
def method(path: str) -> Method:
    """The RPC of that path, `/package.Service/Method`."""
    service, _, name = path.removeprefix("/").partition("/")
    found = _pool().FindServiceByName(service).methods_by_name[name]
    options = descriptor_pb2.MethodOptions.FromString(found.GetOptions().SerializeToString())
    repeatable = options.idempotency_level != descriptor_pb2.MethodOptions.IDEMPOTENCY_UNKNOWN
    return Method(path, class_of(found.input_type), class_of(found.output_type), repeatable, path in ONCE)


def control(name: str) -> Method:
    """An RPC of the service of transactions."""
    return method(f"/{PACKAGE}.TransactionService/{name}")
