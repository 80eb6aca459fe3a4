"""One file per way to compute a sum that nobody sees: client, server and helper halves side by side."""

from .base import (
    Combiner,
    Contribution,
    Decryptor,
    Exchange,
    Generator,
    IntVector,
    Noise,
    Opener,
    Protector,
    SumSpec,
)

__all__ = [
    "Combiner",
    "Contribution",
    "Decryptor",
    "Exchange",
    "Generator",
    "IntVector",
    "Noise",
    "Opener",
    "Protector",
    "SumSpec",
]
