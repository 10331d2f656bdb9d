"""Client of policy-sidecar: the driver services with native values, transactions as blocks, errors as classes.

`connect` is for threads; `policy_sidecar.aio.connect` is for asyncio and has the same names.
"""

from . import errors, operations, types
from ._pages import pages
from .client import Bound, Client, Savepoint, Stream, Transaction, connect
from .errors import SidecarError
from .types import IsolationLevel
from .values import JSON_NULL, UNSET, JsonText

__all__ = [
    "JSON_NULL",
    "UNSET",
    "Bound",
    "Client",
    "IsolationLevel",
    "JsonText",
    "Savepoint",
    "SidecarError",
    "Stream",
    "Transaction",
    "connect",
    "errors",
    "operations",
    "pages",
    "types",
]
