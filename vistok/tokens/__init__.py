"""A dataset as tokens: in a file for generators, in memory for who looks into it, and what its codes stand for."""

from typing import TYPE_CHECKING

from vistok.system.lazy import lazily

if TYPE_CHECKING:
    from vistok.tokens.store import TokenFile, encode_dataset

__all__ = ["TokenFile", "encode_dataset"]
__getattr__, __dir__ = lazily(__name__, {"vistok.tokens.store": __all__})
