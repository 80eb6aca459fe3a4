"""Wrap a Flower strategy so that hidden models are checked before they are summed."""

from __future__ import annotations

from logging import INFO
from pathlib import Path
from typing import Any, ClassVar

from flwr.app import Array, ArrayRecord
from flwr.common.logger import log
from flwr.serverapp.strategy import Strategy

from ..codec import Codec
from ..errors import ConfigError
from ..ledger.settings import Ledger
from ..node.pins import Pins
from ..node.seats import MODE, SCHEME, Seat
from ..privacy import Privacy
from ..roster import VERIFIER, Party
from ..schemes.sharing import SEATS
from ..verification.folding import fold
from ..verification.policy import SUM_FRACTION, Policy
from .strategy import SecureStrategy
from .verifying import Seats, Verification


class Verified(SecureStrategy):
    """Check hidden models by encrypted inference, and sum only those that pass (after Kalapaaking et al. 2023).

    **What it rests on.** Privacy and correctness assume three verifiers that follow the protocol and of whom no two
    work together. Two that do read every model. A single one that deviates can flip the bits that say who passed, and
    so choose who is summed, or spoil the sum; nobody notices. Choose three that answer to different people.

    Every client shares its update among three nodes, so that none of them sees anything. They run the model on their
    own private validation data, on shares, compare accuracy and norms with the policy, and add up the shares of the
    models that passed: what was checked is what is summed. The server learns the mean of each round and, by default,
    who was rejected.

    Needs three more nodes than training nodes with the role ``verifier`` (in simulation the last three partitions,
    for which one node acts), and ``SecureMod(model=Net, validation=load)`` on them; clients need ``SecureMod()``.

    Parameters
    ----------
    strategy : Strategy
        Any mean-based Flower strategy: FedAvg, FedAvgM, FedAdam, FedYogi, FedAdagrad, FedProx.
    policy : Policy (default: Policy())
        What a model must satisfy, and what the checks show.
    min_accepted : int (default: 3)
        Fewest models in a sum, at least 3; with fewer the round is abandoned and the model kept.
    max_examples : int (default: 65536)
        Largest number of examples with which a client can weigh. Weights are hidden, and checked; a number of examples
        pinned in the roster is a bound of its own.
    max_metrics : int (default: 8)
        Largest number of train metrics; they are averaged inside the sum.
    privacy : None
        Not offered: noise for sums of which members are chosen by what they hold is a question of its own.
    stage_timeout : float (default: 300)
        Seconds to wait for the verifiers. They wait a third of it for each other's messages.
    node_wait : float or None (default: None)
        Seconds to wait for nodes to appear; None: 20 in simulation, 120 in deployment.
    assume_mean_based : bool (default: False)
        Accept a subclass that flbc does not know.
    roster : str, Path or None (default: None)
        A roster file for the server too; nodes check their own in any case.
    ledger : Ledger or None (default: None)
        Write every round to smart contracts; rejected models are recorded as such and not paid.

    Raises
    ------
    UnsupportedStrategyError
        If the strategy needs single updates; says what to use instead.
    ConfigError
        If a parameter is out of range, or ``privacy`` is given.

    Notes
    -----
    Not every poisoned model is stopped: a backdoor that leaves accuracy and norms alone passes. The README of
    ``strategies/verified`` has a measured table. Who learns what, alone and in collusion, is stated in
    :mod:`flbc.schemes.sharing`, :mod:`flbc.verification` and ``docs/threat-model.md``.

    Examples
    --------
    ::

        from flbc import Policy, Verified
        strategy = Verified(FedAvg(fraction_train=1.0), policy=Policy(min_accuracy=0.8, warmup_rounds=3))
        strategy.start(grid=grid, initial_arrays=arrays, num_rounds=10)
    """

    scheme: ClassVar[str] = SCHEME
    mode = MODE
    helpers = (VERIFIER,) * SEATS

    def __init__(
        self,
        strategy: Strategy,
        *,
        policy: Policy = Policy(),  # noqa: B008 - frozen
        min_accepted: int = 3,
        max_examples: int = 65_536,
        max_metrics: int = 8,
        privacy: Privacy | None = None,
        stage_timeout: float = 300,
        node_wait: float | None = None,
        assume_mean_based: bool = False,
        roster: str | Path | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        if privacy is not None:
            raise ConfigError("Verified takes no privacy=Privacy(...): use Paillier, NddFe or Masked for that")
        if not isinstance(policy, Policy):
            raise ConfigError("policy must be a flbc.Policy")
        if type(max_examples) is not int or not 1 <= max_examples <= 2**24:
            raise ConfigError("max_examples must be a whole number from 1 to 16777216")
        if type(min_accepted) is not int or min_accepted < 3:
            raise ConfigError("min_accepted must be at least 3: a sum of two shows each of the two the other's update")
        if ledger is not None and policy.reveal != "bit":
            raise ConfigError("A ledger records who was rejected; use Policy(reveal='bit') with ledger=Ledger(...)")
        super().__init__(
            strategy,
            privacy=None,
            codec=Codec(max_examples=max_examples, max_metrics=max_metrics),
            key_bits=0,
            min_survivors=min_accepted,
            stage_timeout=stage_timeout,
            node_wait=node_wait,
            reveal_metrics=(),
            assume_mean_based=assume_mean_based,
            pins=None if roster is None else Pins.load(Path(roster)),
            ledger=ledger,
        )
        self.policy = policy

    def _first_model(self, arrays: ArrayRecord) -> ArrayRecord:
        """Fold BatchNorm's running statistics into its scale and shift, as clients do with what they share."""
        folded = fold({name: array.numpy() for name, array in arrays.items()})
        return ArrayRecord({name: Array(array) for name, array in folded.items()})

    def _summary(self) -> None:
        p = self.policy
        bars = [f"changes up to {p.max_change:g}"]
        bars += [] if p.max_norm is None else [f"L2 norm up to {p.max_norm:g}"]
        bars += [] if p.norm_factor is None else [f"up to {p.norm_factor:g} x the median norm"]
        bars += [] if p.min_accuracy is None else [f"accuracy from {p.min_accuracy:g}"]
        bars += [] if p.max_drop is None else [f"{p.max_drop:g} below the last model and the median"]
        bars += ["towards the committee's own update"] if p.cosine else []
        shown = {"bit": "who is rejected", "count": "how many passed", "none": "nothing but that enough passed"}
        log(INFO, "\t│\t├── Trusted: three verifiers that follow the protocol, of whom no two work together")
        log(INFO, "\t│\t├── Accepted: %s; %g sigmas of chance; from round %d", "; ".join(bars), p.sigmas,
            p.warmup_rounds + 1)  # fmt: skip
        log(INFO, "\t│\t├── The checks show: %s", shown[p.reveal])

    @property
    def _coded(self) -> str:
        return f"{SUM_FRACTION} fractional bits in Z_2^64, weights up to {self.codec.max_examples:g}"

    def _terms(self) -> dict[str, Any]:
        stages = Verification(self.stage_timeout)
        return {"keys": Seats(), "policy": self.policy, "verifying": stages.check, "opening": stages.open}

    def _check_card(self, party: Party, keys: bytes, simulation: bool) -> None:
        if party.has(VERIFIER):
            Seat.decode(keys).check(party, simulation)
