"""The client for asyncio: the same names, awaited."""

from ._pages import pages
from .client import Bound, Client, Savepoint, Stream, Transaction, connect

__all__ = ["Bound", "Client", "Savepoint", "Stream", "Transaction", "connect", "pages"]
