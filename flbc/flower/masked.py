"""Wrap a Flower strategy with pairwise masks that cancel in the sum."""

from __future__ import annotations

from collections.abc import Sequence
from logging import INFO
from pathlib import Path
from typing import Any, ClassVar

from flwr.common.logger import log
from flwr.serverapp.strategy import Strategy

from ..codec import Codec
from ..ledger.settings import Ledger
from ..node.mask_keys import MODE, SCHEME, check_box_key, read_box_statement
from ..node.pins import Pins
from ..privacy import Privacy
from ..privacy.distributed import noisy_parties
from ..roster import TRAIN_ROLE, Party
from ..schemes.masking_graph import FULL_GRAPH, THRESHOLD
from ..schemes.masking_graph import threshold as shares_needed
from .dealers import Dealers
from .node import home
from .strategy import SecureStrategy
from .unmasking import Unmasking


class Masked(SecureStrategy):
    """Hide updates under pairwise masks that cancel in the sum (SecAgg+; Bonawitz et al. 2017, Bell et al. 2020).

    Needs no node beside those that train: clients mask with each other, and open the sum together by giving one share
    of every neighbour's secrets. Clients that drop out, before or after sending, are recovered from as long as more
    than ``threshold`` of a client's group (itself and its neighbours) answer. Two client trips a round; the keys for
    the next round ride on this one's submissions.

    Needs ``SecureMod()`` as the first mod of the ClientApp.

    Parameters
    ----------
    strategy : Strategy
        Any mean-based Flower strategy: FedAvg, FedAvgM, FedAdam, FedYogi, FedAdagrad, FedProx.
    threshold : float (default: 2/3)
        More than this fraction of a group's shares open a secret. Higher: more colluders are held off. Lower, down to
        0.5: more dropouts are recovered; nodes accept less than 2/3 only if their roster's policy says so.
    privacy : Privacy or None (default: None)
        Differential privacy. With ``where="opener"`` the server adds the noise, and knows the exact sum; with
        ``where="clients"`` every client adds a part, and nobody sees a sum without noise. None: the exact mean.
    codec : Codec (default: Codec())
        How updates become integers.
    min_survivors : int (default: 3)
        Fewest clients in a sum; with fewer the round is abandoned and the model kept. At least 3.
    stage_timeout : float (default: 120)
        Seconds to wait for set-up trips and shares; who does not give its share is asked twice.
    node_wait : float or None (default: None)
        Seconds to wait for nodes to appear; None: 20 in simulation, 120 in deployment.
    reveal_metrics : sequence of str (default: ())
        With privacy: metrics that clients may send in clear, outside epsilon.
    assume_mean_based : bool (default: False)
        Accept a subclass that flbc does not know.
    roster : str, Path or None (default: None)
        A roster file for the server too; nodes check their own in any case.
    ledger : Ledger or None (default: None)
        Write every round to smart contracts. The committee signs the list of survivors before a share is given;
        without a ledger only the threshold holds off a server that shows different lists to different clients.

    Raises
    ------
    UnsupportedStrategyError
        If the strategy needs single updates; says what to use instead.
    ConfigError
        If a parameter is out of range, or two do not go together.

    Notes
    -----
    Who learns what, alone and in collusion, is stated in :mod:`flbc.schemes.masking` and ``docs/threat-model.md``.

    Examples
    --------
    ::

        from flbc import Masked
        strategy = Masked(FedAvg(fraction_train=1.0))
        strategy.start(grid=grid, initial_arrays=arrays, num_rounds=3)
    """

    scheme: ClassVar[str] = SCHEME
    mode = MODE
    helpers = ()

    def __init__(
        self,
        strategy: Strategy,
        *,
        threshold: float = THRESHOLD,
        privacy: Privacy | None = None,
        codec: Codec = Codec(),  # noqa: B008 - frozen
        min_survivors: int = 3,
        stage_timeout: float = 120,
        node_wait: float | None = None,
        reveal_metrics: Sequence[str] = (),
        assume_mean_based: bool = False,
        roster: str | Path | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        super().__init__(
            strategy,
            privacy=privacy,
            codec=codec,
            key_bits=0,
            min_survivors=min_survivors,
            stage_timeout=stage_timeout,
            node_wait=node_wait,
            reveal_metrics=reveal_metrics,
            assume_mean_based=assume_mean_based,
            pins=None if roster is None else Pins.load(Path(roster)),
            ledger=ledger,
        )
        shares_needed(min_survivors, threshold)  # raises unless it is a threshold
        if privacy is not None:
            noisy_parties(privacy, min_survivors)  # raises unless two honest clients add noise
        self.threshold = threshold

    def _summary(self) -> None:
        log(INFO, "\t│\t├── Pairwise masks: all with all up to %d clients, a ring of neighbours above", FULL_GRAPH)
        log(INFO, "\t│\t├── Opened with shares of more than %.3g of a client's group", self.threshold)
        if self.ledger is None:
            log(INFO, "\t│\t├── No ledger: only the threshold holds off a server that shows different survivor lists")
            if self.privacy is not None and self.privacy.where == "clients":
                log(INFO, "\t│\t├── and epsilon supposes that it shows one: a smaller sum has less noise")
        else:
            log(INFO, "\t│\t├── The committee signs the list of survivors before a share is given")

    @property
    def _noise_by(self) -> str:
        if self.privacy is not None and self.privacy.where == "clients":
            return f"the clients, of whom {self.privacy.colluders} may work with the server"
        if self.privacy is not None and self.privacy.where == "local":
            return super()._noise_by
        return "the server, which knows the exact sum and is trusted with it"

    def _terms(self) -> dict[str, Any]:
        dealers = Dealers(self.stage_timeout)
        opening = Unmasking(dealers, self.stage_timeout, home() / "server")
        return {"threshold": self.threshold, "keys": dealers, "dealers": dealers, "opening": opening}

    def _check_card(self, party: Party, keys: bytes, simulation: bool) -> None:
        if party.has(TRAIN_ROLE):
            check_box_key(party, *read_box_statement(keys), simulation)
