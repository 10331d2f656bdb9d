"""The original drivers' modules, classes and methods over the sidecar: an engine moves by changing an import.

A driver is made of a session as before. A session of SQLAlchemy is followed: what drivers do on it is one transaction at the
sidecar, committed just before the session commits, or prepared before and committed after it, and rolled back with it. Writes
without a result wait, and are sent together. The client is that of `session.info["policy_sidecar"]`, else one by the environment.
Engines without a database of their own use `Unit` or `AsyncUnit` as a session. The README says what is not equal.
"""

from ._sessions import async_unit_of, unit_of
from ._units import AsyncUnit, Unit

__all__ = ["AsyncUnit", "Unit", "async_unit_of", "unit_of"]
