"""Every exception flbc raises, in one tree.

::

    FlbcError
    ├── ConfigError (ValueError)            a setting is wrong; nothing was started
    │   ├── UnsupportedStrategyError         the wrapped strategy cannot work on a sum
    │   └── PrivacyConfigError               a privacy parameter is out of range
    ├── KeyFileError (OSError)              a key file cannot be made, read or opened
    │   └── WrongPasswordError
    ├── RosterError (ValueError)            pins are malformed, or a party is not in them
    ├── PolicyError (PermissionError)       the node's own policy forbids what was asked
    ├── CodecError (ValueError)             an update cannot be encoded or decoded
    │   ├── NonFiniteError                   NaN or Inf in an array or a metric
    │   └── LayoutError                      names, shapes or dtypes are not the agreed ones
    ├── ProtocolError (ValueError)          a message is malformed or belongs elsewhere
    │   ├── StaleLabelError                  task, round, attempt or model is not the current one
    │   └── PlaintextRefusedError            a train or evaluate message came without a ticket
    ├── VerificationError (ValueError)      a signature, hash or tag does not verify
    │   ├── SignatureError
    │   └── AuditError                       a record on the ledger does not verify
    ├── CiphertextError (ValueError)        a ciphertext or public key is outside its group
    ├── SensitivityError (ValueError)       an update exceeds what the noise was sized for
    ├── OpeningRefusedError (PermissionError)  the opener will not open this sum
    │   ├── AlreadyOpenedError               another block of this round was opened before
    │   └── BudgetExhaustedError             opening would spend more epsilon than agreed
    ├── LedgerError (RuntimeError)          a chain, contract or record is not as it has to be
    │   ├── RevertedError                    a contract refused a call
    │   ├── ChainUnavailableError (ConnectionError)  the chain's node does not answer
    │   ├── ChainBusyError                   another process uses the chain file or the account
    │   └── ChainResetError                  the node serves another chain than the records'
    ├── LinkError (ConnectionError)         a party of a joint computation is silent or not who it should be
    ├── TooFewNodesError (TimeoutError)     the nodes a strategy needs did not appear
    └── DependencyError (ImportError)       an optional package is missing

Members also inherit the fitting builtin, so ``except ValueError`` keeps working. Messages say what happened and what
to do; they never contain secrets or data, because Flower sends the text of a client's exception to the server.
"""

from __future__ import annotations


class FlbcError(Exception):
    """Base class of all errors that flbc raises on purpose."""


class ConfigError(FlbcError, ValueError):
    """A setting is misspelt, missing or out of range; nothing was started."""


class UnsupportedStrategyError(ConfigError):
    """The wrapped Flower strategy needs single updates, or is not known to work on their mean."""


class PrivacyConfigError(ConfigError):
    """A differential-privacy parameter is out of range or contradicts another one."""


class KeyFileError(FlbcError, OSError):
    """A key file cannot be written, read or understood."""


class WrongPasswordError(KeyFileError):
    """The key file does not open with this password, or it was changed."""


class RosterError(FlbcError, ValueError):
    """A roster is malformed, or a party does not match its pins."""


class PolicyError(FlbcError, PermissionError):
    """The node's own policy forbids what the server asked for."""


class CodecError(FlbcError, ValueError):
    """A model update cannot be encoded, or an opened sum cannot be decoded."""


class NonFiniteError(CodecError):
    """An array or a metric holds NaN or infinity."""


class LayoutError(CodecError):
    """Array names, shapes or dtypes differ from those that were agreed for the round."""


class ProtocolError(FlbcError, ValueError):
    """A message is malformed, or it belongs to another stage, round or task."""


class StaleLabelError(ProtocolError):
    """A label names another task, round, attempt, model or configuration than the current one."""


class PlaintextRefusedError(ProtocolError):
    """A train or evaluate message carried no ticket, so the reply would have left in clear."""


class VerificationError(FlbcError, ValueError):
    """A hash, tag or signature does not verify."""


class SignatureError(VerificationError):
    """A signature is malformed or was not made by the expected party."""


class CiphertextError(FlbcError, ValueError):
    """A ciphertext or a public key lies outside its group, or has the wrong length."""


class SensitivityError(FlbcError, ValueError):
    """An encoded update exceeds the sensitivity for which the noise was sized."""


class OpeningRefusedError(FlbcError, PermissionError):
    """The opener refuses to open this sum; by design the message gives no detail."""


class AlreadyOpenedError(OpeningRefusedError):
    """Another block of the same task and round was opened before."""


class BudgetExhaustedError(OpeningRefusedError):
    """Opening one more sum would spend more epsilon than the task allows."""


class LinkError(FlbcError, ConnectionError):
    """A party of a computation among several nodes does not answer in time, has stopped, or shows another identity."""


class TooFewNodesError(FlbcError, TimeoutError):
    """The nodes that the strategy needs did not appear in time."""


class DependencyError(FlbcError, ImportError):
    """An optional package is needed for this and is not installed."""


class LedgerError(FlbcError, RuntimeError):
    """The chain, a contract or a record is not as it has to be."""


class RevertedError(LedgerError):
    """A contract refused a call.

    Parameters
    ----------
    name : str
        Name of the contract's error, e.g. ``"NoQuorum"``; the raw data in hexadecimal when it is unknown.
    arguments : dict
        The error's arguments by name.
    hint : str (default: "")
        What to do.
    """

    def __init__(self, name: str, arguments: dict[str, object] | None = None, hint: str = "") -> None:
        self.name, self.arguments = name, arguments or {}
        shown = ", ".join(f"{key} = {value}" for key, value in self.arguments.items())
        super().__init__(f"The contract refused: {name}({shown})" + (f". {hint}" if hint else ""))


class ChainUnavailableError(LedgerError, ConnectionError):
    """The chain's node does not answer."""


class ChainBusyError(LedgerError):
    """Another process uses the embedded chain or the sending account."""


class ChainResetError(LedgerError):
    """The node serves another chain than the one that the records are on."""


class AuditError(VerificationError):
    """A record does not verify."""
