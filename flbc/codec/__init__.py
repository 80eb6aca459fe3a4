"""A model update <-> a vector of small integers. Knows numpy and bytes, no protocol and no network."""

from .compression import Compression
from .dense import EncodedUpdate, OpenedUpdate, VectorPlan
from .layout import Layout, Tensor
from .settings import Codec, Frame

__all__ = ["Codec", "Compression", "EncodedUpdate", "Frame", "Layout", "OpenedUpdate", "Tensor", "VectorPlan"]
