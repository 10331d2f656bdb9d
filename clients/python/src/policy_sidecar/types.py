"""What answers are made of, the parts of requests, and the closed sets."""

from ._answer import Answer, Trailers
from ._gen.enums import *  # noqa: F403
from ._gen.enums import __all__ as _enums
from ._gen.types import *  # noqa: F403
from ._gen.types import __all__ as _types

__all__ = ["Answer", "Trailers", *_enums, *_types]  # noqa: PLE0604
