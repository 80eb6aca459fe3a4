"""A model update <-> a vector of small integers. Knows numpy and bytes, no protocol and no network."""

from .dense import Codec, EncodedUpdate, Frame, OpenedUpdate, VectorPlan
from .layout import Layout, Tensor

__all__ = ["Codec", "EncodedUpdate", "Frame", "Layout", "OpenedUpdate", "Tensor", "VectorPlan"]
