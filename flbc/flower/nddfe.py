"""The strategy ``NddFe``: functional encryption; a generator and a decryptor open one sum a round together (ESB-FL)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from logging import INFO, WARNING
from pathlib import Path
from typing import ClassVar

from flwr.common.logger import log
from flwr.serverapp.strategy import Strategy

from ..codec import Codec
from ..encoding import parse
from ..errors import ConfigError, ProtocolError
from ..ledger.settings import Ledger
from ..node.nddfe import MODES, PAD, PAPER, NddFeKeys, check_card, read_statement, rotation
from ..node.pins import Pins
from ..privacy import Privacy
from ..roster import GENERATOR, Party, Roster
from ..round import NO_LEADER
from .session import Session
from .strategy import SecureStrategy

WEIGHTS = ("hidden", "declared")


class NddFe(SecureStrategy):
    """Hide updates with functional encryption, opened by two nodes that do not collude (Chen et al., ESB-FL).

    Clients hide their update from everybody under what they share with a *generator* and with a *decryptor*. The server
    adds; the generator (the node of who pays for the task) derives one function key a round, with differential-privacy
    noise inside if asked to; the decryptor (a training node that changes every round; with a ledger the elected leader)
    opens the sum with it. Neither can open anything alone, and the server learns the (noised) mean.

    Needs one more node than training nodes, with the role ``generator`` (in simulation the last partition serves it),
    and ``SecureMod()`` as the first mod of the ClientApp.

    Parameters
    ----------
    strategy : Strategy
        Any mean-based Flower strategy: FedAvg, FedAvgM, FedAdam, FedYogi, FedAdagrad, FedProx.
    mode : str (default: "pad")
        ``"pad"``: inner products modulo 2^32 or 2^64, exact and near the speed of memory. ``"group"``: on secp256k1, a
        function key of 32 bytes, about 10,000 times slower. ``"paper"``: the scheme as printed, INSECURE, for study:
        no node takes part unless its own policy (or SecureMod) names ``"nddfe-paper"``.
    weights : str (default: "hidden")
        ``"hidden"``: numbers of examples are summed with the updates and nobody sees one. ``"declared"``: updates are
        weighed by the declared numbers of examples, which are public, so that no client can lie about its own. In
        ``mode="paper"`` the server multiplies, as printed: the inner product with y.
    privacy : Privacy or None (default: None)
        Differential privacy with noise added by the generator; None: the exact mean is opened.
    codec : Codec (default: Codec())
        How updates become integers.
    min_survivors : int (default: 3)
        Fewest clients in a sum; with fewer the round is abandoned and the model kept. At least 3.
    stage_timeout : float (default: 120)
        Seconds to wait for generator and decryptor, each; they are asked twice.
    node_wait : float or None (default: None)
        Seconds to wait for nodes to appear; None: 20 in simulation, 120 in deployment.
    reveal_metrics : sequence of str (default: ())
        With privacy: metrics that clients may send in clear, outside epsilon.
    assume_mean_based : bool (default: False)
        Accept a subclass that flbc does not know.
    roster : str, Path or None (default: None)
        A roster file for the server too; nodes check their own in any case.
    ledger : Ledger or None (default: None)
        Write every round to smart contracts: the leader of a block is its decryptor, a committee signs, and the reward
        is paid at the end if the model reached the accuracy. Needs nodes with the role ``committee``; in simulation the
        first seven training nodes serve in it.

    Raises
    ------
    UnsupportedStrategyError
        If the strategy needs single updates; says what to use instead.
    ConfigError
        If a parameter is out of range, or two do not go together.

    Notes
    -----
    Who learns what, alone and in collusion, is stated in :mod:`flbc.schemes.ndd_fe_pad`,
    :mod:`flbc.schemes.ndd_fe_group` and ``docs/threat-model.md``.

    Examples
    --------
    ::

        from flbc import NddFe
        strategy = NddFe(FedAvg(fraction_train=1.0))
        strategy.start(grid=grid, initial_arrays=arrays, num_rounds=3)
    """

    scheme: ClassVar[str] = "nddfe"
    helpers = (GENERATOR,)

    def __init__(
        self,
        strategy: Strategy,
        *,
        mode: str = PAD,
        weights: str = "hidden",
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
        if mode not in MODES:
            raise ConfigError(f"NddFe(mode={mode!r}) is unknown; choose one of {', '.join(MODES)}")
        if weights not in WEIGHTS:
            raise ConfigError(f"NddFe(weights={weights!r}) is unknown; choose one of {', '.join(WEIGHTS)}")
        self.mode, self.declared_weights, self.key_maker = mode, weights == "declared", self._keys
        if privacy is not None and self.declared_weights:
            raise ConfigError("With privacy every update counts alike; leave out weights='declared'")
        if privacy is not None and mode == PAPER:
            raise ConfigError(
                "NddFe(mode='paper') has one function key for all coordinates, so that noise in it would be the same "
                "in all of them; use mode='pad' with privacy"
            )
        if self.declared_weights and codec.max_examples is not None:
            raise ConfigError("Codec(max_examples=...) bounds hidden weights; leave it out with weights='declared'")
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

    def _summary(self) -> None:
        who = "the elected leader" if self.ledger is not None else "a training node in turn"
        log(INFO, "\t│\t├── Function keys (mode %s) by: generator; opened by: %s", self.mode, who)
        if self.mode == PAPER:
            log(WARNING, "flbc: NddFe(mode='paper') is INSECURE and for study only: outsiders read single clients")
        if self.declared_weights:
            log(INFO, "\t│\t├── Weights: declared numbers of examples, in clear")

    def _check_card(self, party: Party, keys: bytes, simulation: bool) -> None:
        if self.mode != PAD:
            check_card(party, keys, simulation)

    def _keys(
        self, session: Session, roster: Roster, server_round: int, skipped: int, attempt: int, nodes: Iterable[int]
    ) -> bytes:
        """Name the decryptor of an attempt, and in the group modes everybody's public key."""
        index = NO_LEADER if session.chain is None else session.chain.leader(roster, skipped)
        if index == NO_LEADER:
            order = rotation(roster, session.task, server_round)
            if not order:
                raise ProtocolError("No training node can be the decryptor")
            index = order[min(skipped, len(order) - 1)]
        publics = {}
        if self.mode != PAD:
            for card in session.directory.known():  # a roster names hospitals that are away, too
                if card.party in roster.parties:
                    publics[card.party.name] = read_statement(parse(card.keys, "scheme key"))
        return NddFeKeys(roster.parties[index].name, publics).encoded
