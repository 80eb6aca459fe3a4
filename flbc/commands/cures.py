"""What to do when a contract refuses: its errors say what is wrong, not which command helps."""

from __future__ import annotations

from ..errors import FlbcError, RevertedError
from .amounts import moment

_TIMES = {"until", "deadline", "unlockAt", "latest"}
_CURES = {
    "AccountSuspended": "The authority can lift it: `flbc suspend {account} --lift`",
    "AlreadyClaimed": "There is nothing more to fetch",
    "AlreadyPunished": "Somebody has reported this before",
    "AlreadyUnstaking": "`flbc stake withdraw` pays the stake back from {unlockAt} on",
    "BadDeadline": "--deadline must end before {latest}",
    "BadName": "A party's name has 1 to 32 ASCII characters: make the key file anew with a shorter one",
    "BadProofOfPossession": "Is --deployment the file of this chain?",
    "BadQuorum": "The quorum must be more than half of the committee: start the run with other ledger settings",
    "BadSigma1": "Sign with the key that the publisher registered",
    "DeadlineNotPassed": "The escrow goes back after {deadline}",
    "DeadlinePassed": "`flbc task refund` returns the escrow; then start the run again",
    "KeysTooRecent": "{account} changed its keys after the publication: start the run again, so that it publishes anew",
    "NotActive": "{account} has left or is suspended: it registers again with `flbc register`, or leave it out",
    "NotPublisher": "Register the account for it: `flbc register --publisher`",
    "NotRegistered": "Register it with `flbc register`",
    "NotUnstaking": "`flbc stake leave` comes first",
    "NothingToMove": "There is no stake to pay back",
    "OwnableUnauthorizedAccount": "Only the authority's account may do this",
    "PaymentFailed": "{receiver} refuses ether",
    "SignerTaken": "The key belongs to account {account}: send from there (--account), or make a new key file",
    "StakeLocked": "A running task counts on the stake: withdraw it after {until}",
    "TaskExists": "`flbc task status` shows it",
    "UnknownSigner": "The signer was never registered here: is this the right chain?",
    "VrfTaken": "The VRF key belongs to account {account}: make a new key file",
    "WrongStatus": "`flbc task status` tells what can be done with the task now",
}


def explain(error: FlbcError) -> str:
    """Return an error's message, with the cure if a contract refused."""
    if not isinstance(error, RevertedError) or error.name not in _CURES:
        return str(error)
    words = {
        name: moment(value) if name in _TIMES and isinstance(value, int) else str(value)
        for name, value in error.arguments.items()
    }
    try:
        return f"{error}. {_CURES[error.name].format_map(words)}"
    except KeyError:  # a contract of another version
        return str(error)
