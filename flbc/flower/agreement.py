"""Fix the terms of a run with the nodes that are there: the task's configuration, its noise, and its ledger."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from logging import WARNING
from typing import Any

from flwr.app import ArrayRecord
from flwr.common.logger import log
from flwr.serverapp import Grid

from ..codec import Codec, Layout, VectorPlan
from ..errors import ConfigError
from ..ledger.record import Book
from ..ledger.settings import Ledger
from ..node.attestor import SoftwareAttestor
from ..node.covenant import Covenant, default_quorum
from ..node.endorsement import COMMITTEE
from ..node.model_plan import ModelPlan
from ..node.seats import Seat
from ..node.settlement import ACCURACY
from ..node.terms import WEIGHED_BY_SERVER, codec_terms
from ..privacy import GaussianMechanism, Privacy
from ..privacy.planning import affordable
from ..privacy.planning import plan as plan_mechanism
from ..roster import TRAIN_ROLE, VERIFIER, Party, Roster
from ..task import TaskConfig
from ..verification.policy import Policy
from . import wire
from .chain import Chain
from .directory import Card, Directory
from .session import Session, Terms
from .sparse import Progress


def open_session(
    grid: Grid,
    directory: Directory,
    terms: Terms,
    arrays: ArrayRecord,
    num_rounds: int,
    weight_key: str,
    book: Book | None = None,
) -> tuple[Session, int]:
    """Fix the terms of a run with the nodes that are online.

    Parameters
    ----------
    grid, directory
        The nodes; the helpers are known to be online.
    terms : Terms
    arrays : ArrayRecord
        Initial model.
    num_rounds : int
        Rounds asked for.
    weight_key : str
        Name of the weight in a MetricRecord.
    book : Book or None (default: None)
        The ledger; the task is published and started on it.

    Returns
    -------
    session : Session
    rounds : int
        Rounds that the privacy budget allows, at most ``num_rounds``.

    Raises
    ------
    ConfigError
        If the terms do not fit the nodes, e.g. a data-set size is not declared.
    """
    training = directory.online(grid, TRAIN_ROLE)
    helpers = [next(iter(directory.online(grid, role).values())) for role in terms.helpers]
    if len({card.simulation for card in (*training.values(), *helpers)}) != 1:
        raise ConfigError("Some nodes use development identities (flbc-dev) and some do not")
    private, codec = terms.privacy is not None, terms.codec
    multiplier = _largest_multiplier(training.values()) if terms.declared_weights else None
    if multiplier is not None:
        codec = replace(codec, max_examples=1.0 if terms.mode in WEIGHED_BY_SERVER else float(multiplier))
    plan = _plan(terms, arrays, codec)
    if codec.compression is not None and not plan.layout.count("float"):
        raise ConfigError(
            "Codec(compression=...): the model has no floating-point array, so there is nothing to compress"
        )
    rounds, mechanism = num_rounds, None
    if terms.privacy is not None and isinstance(plan, VectorPlan):
        parties = [card.party for card in training.values()]
        rounds = min(num_rounds, _affordable(terms, plan, num_rounds))
        mechanism = _mechanism(terms, terms.privacy, plan, parties, rounds)
        if rounds < num_rounds:
            log(
                WARNING,
                "flbc: the budget epsilon = %g allows %d of %d rounds; the run stops there",
                terms.privacy.epsilon,
                rounds,
                num_rounds,
            )
    roster, covenant = None, None
    if book is not None and terms.ledger is not None:
        roster, covenant = _agree(directory.cards(grid).values(), book, terms.ledger, private, terms.reveal_metrics)
    config = TaskConfig(
        scheme=terms.scheme,
        mode=terms.mode,
        codec=codec_terms(plan, mechanism, weight_key, multiplier),
        privacy=None if mechanism is None else mechanism.to_dict(),
        rounds=rounds,
        min_survivors=terms.min_survivors,
        # Slots hold a power of two of parties anyway, so late joiners up to it cost nothing.
        max_parties=2 ** math.ceil(math.log2(max(len(training), terms.min_survivors))),
        key_bits=terms.key_bits,
        scheme_keys=tuple(dict.fromkeys(card.party.scheme_key for card in helpers if card.party.scheme_key)),
        reveal_metrics=terms.reveal_metrics,
        ledger=None if covenant is None else covenant.to_dict(),
        sharing=None if terms.threshold is None else {"threshold": terms.threshold},
        verification=None if terms.policy is None else _verification(terms.policy, directory, grid),
    )
    simulation = next(iter(training.values())).simulation
    session = Session(
        grid, directory, terms.helpers, config, plan, mechanism, terms.keys or _constant(helpers), simulation,
        plan.first_frame(), dealers=terms.dealers, opening=terms.opening, verifying=terms.verifying,
    )  # fmt: skip
    if terms.codec.compression is not None:
        session.progress = Progress.fresh(terms.codec.compression, plan.layout.count("float"))
    if book is not None and roster is not None and covenant is not None:
        started = book.start(config, roster, wire.arrays_hash(arrays))
        session.task, session.roster = started.task, roster
        session.chain = Chain(book, covenant, started)
    return session, rounds


def _plan(terms: Terms, arrays: ArrayRecord, codec: Codec) -> VectorPlan | ModelPlan:
    numbers, private = {name: a.numpy() for name, a in arrays.items()}, terms.privacy is not None
    if terms.policy is not None:
        return ModelPlan(Layout.of(numbers, private=True), codec, terms.policy)
    return VectorPlan(Layout.of(numbers, private=private), codec, private)


def _verification(policy: Policy, directory: Directory, grid: Grid) -> dict[str, Any]:
    """Return what models are checked with: the policy, and the model that all three verifiers compiled."""
    cards = directory.online(grid, VERIFIER).values()
    programs = {Seat.decode(card.keys).program: card.party.name for card in cards}
    if len(programs) != 1:
        raise ConfigError(
            f"The verifiers {', '.join(sorted(programs.values()))} compiled different models; "
            "SecureMod(model=...) must be the same on all three"
        )
    return {"policy": policy.to_dict(), "program": next(iter(programs)).hex()}


def _agree(
    cards: Iterable[Card], book: Book, ledger: Ledger, private: bool, reveal_metrics: tuple[str, ...]
) -> tuple[Roster, Covenant]:
    """Fix who takes part in a task on the ledger, and what is agreed about it."""
    cards = list(cards)
    parties = sorted((card.party for card in cards), key=lambda party: party.name)
    members = [party for party in parties if party.has(COMMITTEE)]
    if not members:
        raise ConfigError(
            "A ledger needs a committee, and no node serves in it; start SuperNodes with --node-config "
            '\'flbc-role="hospital,committee" …\', or some with flbc-role="committee"'
        )
    undeclared = [party.name for party in parties if party.has(TRAIN_ROLE) and not party.examples]
    if ledger.payout == "examples" and undeclared:
        raise ConfigError(
            f"Ledger(payout='examples') needs the declared size of every training set; {undeclared[0]!r} has none. Use "
            "ClientApp(mods=[SecureMod(examples=...)]), or payout='equal'"
        )
    if private and ledger.accuracy_bps and ACCURACY not in reveal_metrics:
        raise ConfigError(
            f"Ledger(accuracy={ledger.accuracy:g}) puts each committee member's accuracy on the chain, outside "
            f"epsilon; add reveal_metrics=({ACCURACY!r},), or leave accuracy out"
        )
    if any(card.simulation != book.simulation for card in cards):
        raise ConfigError(
            "The contracts were deployed for simulation and the nodes have their own keys, or the other way round; "
            "deploy with or without `flbc deploy --simulation`, to match the nodes"
        )
    covenant = Covenant(
        quorum=ledger.quorum or default_quorum(len(members)),
        election=ledger.election,
        payout=ledger.payout,
        accuracy_bps=ledger.accuracy_bps,
        attestor=SoftwareAttestor.kind,
        stakes=book.stakes(parties),
    )
    roster = Roster(tuple(parties))
    covenant.check_roster(roster)
    return roster, covenant


@dataclass(frozen=True, slots=True)
class _Constant:
    """The same keys in every attempt."""

    keys: bytes

    def __call__(
        self, session: Session, roster: Roster, server_round: int, skipped: int, attempt: int, nodes: Iterable[int]
    ) -> bytes:
        return self.keys


def _constant(helpers: list[Card]) -> _Constant:
    """Return the keys of the one helper that has any, for every attempt."""
    return _Constant(next((card.keys for card in helpers if card.keys), b""))


def _largest_multiplier(cards: Iterable[Card]) -> int:
    """Return a power of two that no declared number of examples exceeds."""
    parties = [card.party for card in cards]
    undeclared = [party.name for party in parties if not party.examples]
    if undeclared:
        raise ConfigError(
            f"weights='declared' needs the declared size of every training set; {undeclared[0]!r} has none. Use "
            "ClientApp(mods=[SecureMod(examples=...)]) or `examples` in the roster"
        )
    return 1 << (max(party.examples for party in parties) - 1).bit_length()


def _affordable(terms: Terms, plan: VectorPlan, num_rounds: int) -> int:
    """Return how many rounds the budget pays for, at most ``num_rounds``."""
    privacy = terms.privacy
    if privacy is None or privacy.noise_multiplier is None:
        return min((privacy and privacy.rounds) or num_rounds, num_rounds)  # the multiplier is solved for them
    paid = affordable(
        privacy,
        dimension=plan.length,
        client_step=privacy.clip_norm / terms.codec.max_abs,
        min_survivors=terms.min_survivors,
        most=privacy.rounds or num_rounds,
    )
    if paid < 1:
        raise ConfigError(
            f"Privacy(noise_multiplier={privacy.noise_multiplier:g}) exceeds epsilon = {privacy.epsilon:g} in the "
            "first round; raise epsilon or the multiplier, or leave noise_multiplier out to have it solved"
        )
    return min(paid, privacy.rounds or num_rounds, num_rounds)


def _mechanism(
    terms: Terms, privacy: Privacy, plan: VectorPlan, parties: list[Party], rounds: int
) -> GaussianMechanism:
    largest = 1
    if privacy.unit == "example":
        undeclared = [party.name for party in parties if not party.examples]
        if undeclared:
            raise ConfigError(
                f"Privacy(unit='example') needs the declared size of every training set; {undeclared[0]!r} has none. "
                "Use ClientApp(mods=[SecureMod(examples=...)]) or `examples` in the roster"
            )
        largest = max(party.examples for party in parties)
    return plan_mechanism(
        privacy,
        dimension=plan.length,
        rounds=rounds,
        max_examples=largest,
        client_step=privacy.clip_norm / terms.codec.max_abs,
        min_survivors=terms.min_survivors,
    )
