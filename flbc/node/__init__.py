"""One party: who it is, whom it trusts, what it remembers, and its two jobs (submit an update, open a sum).

Everything a node decides is decided here, without Flower, so that it can be tested and attacked with function calls.
"""

from .authority import Authority
from .identity import Identity, development_identity, load_identity
from .memory import NodeMemory
from .participant import Participant
from .pins import Pins, Policy
from .ticket import Ticket

__all__ = [
    "Authority",
    "Identity",
    "NodeMemory",
    "Participant",
    "Pins",
    "Policy",
    "Ticket",
    "development_identity",
    "load_identity",
]
