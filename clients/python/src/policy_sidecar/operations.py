"""Operations for `execute`: `operations.policy_engine.insert_violation(…)` takes what the service's method takes."""

from ._gen.operations import *  # noqa: F403
from ._gen import operations
from ._operations import Executed, Operation

__all__ = ["Executed", "Operation"]
__all__ += operations.__all__
