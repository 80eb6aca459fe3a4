"""The strategy ``Paillier``: packed homomorphic encryption, opened by a key authority, alone or with others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from logging import INFO
from pathlib import Path
from typing import ClassVar

from flwr.common.logger import log
from flwr.serverapp.strategy import Strategy

from ..codec import Codec
from ..crypto.paillier import SECURE_KEY_BITS
from ..crypto.paillier_threshold import MAX_HOLDERS
from ..errors import ConfigError
from ..ledger.settings import Ledger
from ..node.paillier import ALONE, HOLDER, MODES, SPLIT, THRESHOLD
from ..node.pins import Pins
from ..node.scheme_keys import check_holder, read_holder, shared_keys
from ..privacy import Privacy
from ..roster import Party, Roster
from .node import helpers_of
from .session import Session
from .strategy import SecureStrategy


class Paillier(SecureStrategy):
    """Hide updates with Paillier encryption; a key authority opens the sum once a round (Sun & Zhao 2025).

    Clients encrypt their update under the authority's public key; the server multiplies ciphertexts; the authority
    opens the product only if it is the sum of exactly the clients it recognises, adds differential-privacy noise if
    asked to, and answers the server. The server learns the (noised) mean of each round and nothing else.

    Needs one more node than training nodes, with the role ``authority`` (in simulation the last partition serves it),
    and ``SecureMod()`` as the first mod of the ClientApp. ``opening`` says who opens, and which nodes that takes.

    Parameters
    ----------
    strategy : Strategy
        Any mean-based Flower strategy: FedAvg, FedAvgM, FedAdam, FedYogi, FedAdagrad, FedProx.
    opening : str (default: "authority")
        ``"authority"``: the authority opens alone, and could open any client whose ciphertext it got. ``"split"``: the
        authority and a second node, of the role ``generator``, open together; neither reads anything alone, the noise
        is the generator's, and nodes accept no less if their roster's policy says ``schemes = ["paillier-split"]``.
        ``"threshold"``: nobody holds the key; ``threshold`` of the committee's nodes, which have a share of it each,
        open together, and the authority joins their answers and adds the noise (``"paillier-threshold"``).
    threshold : int or None (default: None)
        With ``opening="threshold"``: shares that open a sum, more than half of the holders (of whom there are at most
        20), because each holder alone keeps to one sum a round. None: what the deployed key was dealt for (``flbc keys
        deal``), in simulation the majority; there the first seven training nodes are the holders.
    privacy : Privacy or None (default: None)
        Differential privacy with noise added by the authority (split: the generator); None: the exact mean is opened.
    codec : Codec (default: Codec())
        How updates become integers.
    key_bits : int (default: 3072)
        Size of the Paillier modulus: 2048, 3072 or 4096.
    min_survivors : int (default: 3)
        Fewest clients in a sum; with fewer the round is abandoned and the model kept. At least 3.
    stage_timeout : float (default: 120)
        Seconds to wait for the authority; it is asked twice.
    node_wait : float or None (default: None)
        Seconds to wait for nodes to appear; None: 20 in simulation, 120 in deployment.
    reveal_metrics : sequence of str (default: ())
        With privacy: metrics that clients may send in clear, outside epsilon.
    assume_mean_based : bool (default: False)
        Accept a subclass that flbc does not know.
    roster : str, Path or None (default: None)
        A roster file for the server too; nodes check their own in any case.
    ledger : Ledger or None (default: None)
        Write every round to smart contracts: an elected leader and a committee sign each block, and the reward is
        paid at the end. Needs nodes with the role ``committee``; in simulation the first seven
        training nodes serve in it.

    Raises
    ------
    UnsupportedStrategyError
        If the strategy needs single updates; says what to use instead.
    ConfigError
        If a parameter is out of range.

    Notes
    -----
    Who learns what, alone and in collusion, is stated in :mod:`flbc.schemes.paillier`,
    :mod:`flbc.schemes.paillier_split`, :mod:`flbc.schemes.paillier_threshold` and ``docs/threat-model.md``.

    Examples
    --------
    ::

        from flbc import Paillier
        strategy = Paillier(FedAvg(fraction_train=1.0))
        strategy.start(grid=grid, initial_arrays=arrays, num_rounds=3)
    """

    scheme: ClassVar[str] = "paillier"

    def __init__(
        self,
        strategy: Strategy,
        *,
        opening: str = ALONE,
        threshold: int | None = None,
        privacy: Privacy | None = None,
        codec: Codec = Codec(),  # noqa: B008 - frozen
        key_bits: int = 3072,
        min_survivors: int = 3,
        stage_timeout: float = 120,
        node_wait: float | None = None,
        reveal_metrics: Sequence[str] = (),
        assume_mean_based: bool = False,
        roster: str | Path | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        if key_bits not in SECURE_KEY_BITS:
            raise ConfigError(f"key_bits must be one of {', '.join(map(str, SECURE_KEY_BITS))}, not {key_bits}")
        if opening not in MODES:
            raise ConfigError(f"Paillier(opening={opening!r}) is unknown; choose one of {', '.join(MODES)}")
        if threshold is not None and (type(threshold) is not int or not 2 <= threshold <= MAX_HOLDERS):
            raise ConfigError(
                f"Paillier(threshold={threshold!r}) (run-config opening-threshold) must be at least 2 and at most "
                f"{MAX_HOLDERS}: with one share enough, every holder could open everything, and a key has at most "
                f"{MAX_HOLDERS} holders"
            )
        if opening != THRESHOLD and threshold is not None:
            raise ConfigError(f"Paillier(threshold={threshold}) belongs to opening='threshold'; leave it out")
        self.mode, self.helpers, self.threshold = opening, helpers_of(self.scheme, opening), threshold
        if opening == THRESHOLD:
            self.helpers += (HOLDER,) * (threshold or 2)  # without a number the first holder's key says how many
            self.key_maker, self._asked = self._shared, {"threshold": threshold or 0}
        super().__init__(
            strategy,
            privacy=privacy,
            codec=codec,
            key_bits=key_bits,
            min_survivors=min_survivors,
            stage_timeout=stage_timeout,
            node_wait=node_wait,
            reveal_metrics=reveal_metrics,
            assume_mean_based=assume_mean_based,
            pins=None if roster is None else Pins.load(Path(roster)),
            ledger=ledger,
        )

    @property
    def _noise_by(self) -> str:
        if self.mode == SPLIT and self.privacy is not None and self.privacy.where == "opener":
            return "the generator, who is trusted not to take it away again"
        return super()._noise_by

    def _summary(self) -> None:
        who = {
            ALONE: "authority alone",
            SPLIT: "authority and generator together",
            THRESHOLD: f"{self.threshold or 'more than half'} of the committee together, joined by the authority",
        }[self.mode]
        log(INFO, "\t│\t├── Scheme key: %d bits; opened by: %s", self.key_bits, who)

    def _check_card(self, party: Party, keys: bytes, simulation: bool) -> None:
        if self.mode == THRESHOLD and party.has(HOLDER):
            key, signed = read_holder(keys)
            check_holder(key, signed, party, simulation)
            if self.threshold is None:
                others = tuple(role for role in self.helpers if role != HOLDER)
                self.helpers = others + (HOLDER,) * max(key.threshold, self.helpers.count(HOLDER))

    def _shared(
        self, session: Session, roster: Roster, server_round: int, skipped: int, attempt: int, nodes: Iterable[int]
    ) -> bytes:
        """Return the shared key with the word of every holder in the roster, also of those that are away."""
        cards = (card for card in session.directory.known() if card.party in roster.parties)
        return shared_keys({card.party.name: card.keys for card in cards if card.party.has(HOLDER)})
