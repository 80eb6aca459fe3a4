"""flbc: secure aggregation for Flower. Wrap the strategy, add one mod; nobody sees a single client's update."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .codec import Codec, Compression
from .errors import (
    AlreadyOpenedError,
    AuditError,
    BudgetExhaustedError,
    ChainBusyError,
    ChainResetError,
    ChainUnavailableError,
    CiphertextError,
    CodecError,
    ConfigError,
    DependencyError,
    FlbcError,
    KeyFileError,
    LayoutError,
    LedgerError,
    LinkError,
    NonFiniteError,
    OpeningRefusedError,
    PlaintextRefusedError,
    PolicyError,
    PrivacyConfigError,
    ProtocolError,
    RevertedError,
    RosterError,
    SensitivityError,
    SignatureError,
    StaleLabelError,
    TooFewNodesError,
    UnsupportedStrategyError,
    VerificationError,
    WrongPasswordError,
)
from .ledger.settings import Ledger
from .privacy import Privacy, clipped_gradient_sum, poisson_sample
from .verification.policy import Policy

if TYPE_CHECKING:
    from .flower.masked import Masked
    from .flower.mod import SecureMod
    from .flower.nddfe import NddFe
    from .flower.paillier import Paillier
    from .flower.verified import Verified

__version__ = "0.1.0"

__all__ = [
    "AlreadyOpenedError",
    "AuditError",
    "BudgetExhaustedError",
    "ChainBusyError",
    "ChainResetError",
    "ChainUnavailableError",
    "CiphertextError",
    "Codec",
    "CodecError",
    "Compression",
    "ConfigError",
    "DependencyError",
    "FlbcError",
    "KeyFileError",
    "LayoutError",
    "Ledger",
    "LedgerError",
    "LinkError",
    "Masked",
    "NddFe",
    "NonFiniteError",
    "OpeningRefusedError",
    "Paillier",
    "PlaintextRefusedError",
    "Policy",
    "PolicyError",
    "Privacy",
    "PrivacyConfigError",
    "ProtocolError",
    "RevertedError",
    "RosterError",
    "SecureMod",
    "SensitivityError",
    "SignatureError",
    "StaleLabelError",
    "TooFewNodesError",
    "UnsupportedStrategyError",
    "VerificationError",
    "Verified",
    "WrongPasswordError",
    "clipped_gradient_sum",
    "poisson_sample",
]


def __getattr__(name: str) -> Any:
    # Client mods run in a new process per message in deployment: the strategies are imported only where they are used.
    if name == "Paillier":
        from .flower.paillier import Paillier

        return Paillier
    if name == "NddFe":
        from .flower.nddfe import NddFe

        return NddFe
    if name == "Masked":
        from .flower.masked import Masked

        return Masked
    if name == "Verified":
        from .flower.verified import Verified

        return Verified
    if name == "SecureMod":
        from .flower.mod import SecureMod

        return SecureMod
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
