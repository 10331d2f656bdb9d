"""The client for asyncio: the same names, awaited."""

from .client import Bound, Client, Savepoint, Stream, Transaction, connect

__all__ = ["Bound", "Client", "Savepoint", "Stream", "Transaction", "connect"]
