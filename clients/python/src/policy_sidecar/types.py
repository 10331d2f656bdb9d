"""What answers are made of, the parts of requests, and the closed sets."""

from ._answer import Answer, Trailers
from ._gen import enums, types
from ._gen.enums import *  # noqa: F403
from ._gen.types import *  # noqa: F403

__all__ = ["Answer", "Trailers"]
__all__ += enums.__all__
__all__ += types.__all__
