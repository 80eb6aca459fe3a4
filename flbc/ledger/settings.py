"""What users say about the ledger: ``Paillier(FedAvg(...), ledger=Ledger(...))``. Loads no web3."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..crypto.signing import parse_address
from ..errors import ConfigError
from ..node.covenant import ELECTIONS, PAYOUT_RULES

EMBEDDED = "embedded"
ETHER = 10**18


@dataclass(frozen=True, kw_only=True, slots=True)
class Ledger:
    """Write every round of a run to the contracts, and pay for it at the end.

    Parameters
    ----------
    url : str (default: "embedded")
        ``"embedded"``: a chain in this process, kept in FLBC_HOME; else the URL of an Ethereum node's JSON-RPC.
    reward : float (default: 1.0)
        Escrow in ether, shared at the end. On a development chain the run publishes the task itself; elsewhere the
        publisher does, with ``flbc task publish``.
    accuracy : float (default: 0.0)
        Accuracy that the final model must reach on the committee's own data, from 0 to 1. 0: no evaluation, the
        reward is paid for the rounds alone.
    deadline : float (default: 86400)
        Seconds from publishing until which the task must be settled; afterwards the escrow goes back.
    payout : {"equal", "examples"} (default: "equal")
        Share by accepted rounds, or by accepted rounds times declared examples.
    election : {"vrf", "committee"} (default: "vrf")
        Whether the contract verifies leaders' VRF proofs itself, or leaves that to the committee.
    quorum : int or None (default: None)
        Committee members that must sign; None: more than two thirds.
    committee : int (default: 1)
        Committee members to wait for before the task starts; later ones take no part.
    link : str (default: "")
        Where the final model can be had; goes on the chain.
    require_final : bool (default: False)
        Wait for each round's record to be final before the next; otherwise records are queued and land in order.
    confirmations : int or None (default: None)
        Blocks on top of a record's until it counts as final; None: 0 on development chains, else 12.
    key : str, Path or None (default: None)
        Key file of the relayer, the account that pays gas and has no rights (S4). None: the development account.
    deployment : str, Path or None (default: None)
        Deployment file that ``flbc deploy`` wrote; None: the one in FLBC_HOME for this chain.
    publish_wait : float (default: 3600)
        Seconds to wait for the publisher where the run does not publish itself.
    settle_wait : float (default: 60)
        Seconds to wait at the end for queued records and the settlement.
    publisher : str (default: "")
        Account whose task is taken where the run does not publish itself; needed off development chains.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    url: str = EMBEDDED
    reward: float = 1.0
    accuracy: float = 0.0
    deadline: float = 86_400.0
    payout: str = "equal"
    election: str = "vrf"
    quorum: int | None = None
    committee: int = 1
    link: str = ""
    require_final: bool = False
    confirmations: int | None = None
    key: str | Path | None = None
    deployment: str | Path | None = None
    publish_wait: float = 3600.0
    settle_wait: float = 60.0
    publisher: str = ""

    def __post_init__(self) -> None:
        """Check the values."""
        if not isinstance(self.url, str) or not self.url:
            raise ConfigError("Ledger(url=...) must be 'embedded' or the URL of an Ethereum node")
        if not self.reward > 0 or not self.deadline > 0 or not 0 <= self.accuracy <= 1:
            raise ConfigError("Ledger needs reward > 0 ether, deadline > 0 seconds and 0 <= accuracy <= 1")
        if self.payout not in PAYOUT_RULES or self.election not in ELECTIONS:
            raise ConfigError(f"Ledger needs payout in {PAYOUT_RULES} and election in {ELECTIONS}")
        if self.quorum is not None and (type(self.quorum) is not int or self.quorum < 1):
            raise ConfigError("Ledger(quorum=...) must be a positive integer, or None for more than two thirds")
        if type(self.committee) is not int or self.committee < 1:
            raise ConfigError("Ledger(committee=...) must be a positive integer: the members to wait for")
        if min(self.confirmations or 0, self.publish_wait, self.settle_wait) < 0:
            raise ConfigError("Ledger needs confirmations, publish_wait and settle_wait of at least 0")
        if self.publisher:
            parse_address(self.publisher)

    @property
    def reward_wei(self) -> int:
        """The escrow in wei."""
        return round(self.reward * 10**9) * 10**9

    @property
    def accuracy_bps(self) -> int:
        """The accuracy in hundredths of a per cent."""
        return round(self.accuracy * 10_000)
