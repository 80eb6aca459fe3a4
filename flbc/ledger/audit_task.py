"""First part of an audit: what was published, who takes part, and where the election's seed comes from."""

from __future__ import annotations

from dataclasses import dataclass

from ..crypto.eip712 import Domain, typed_digest
from ..crypto.signing import keccak256, verify
from ..errors import VerificationError
from ..node.covenant import Covenant
from ..node.terms import mechanism_of
from ..privacy.mechanism import GaussianMechanism
from ..roster import ROLE_BITS, Party, Roster
from ..round import DEVELOPMENT_CHAINS, Struct, domain
from ..task import TaskConfig
from ..tokens import Genesis, Register, TaskToken
from .doubts import Clock, Doubts
from .members import party_of
from .packing import Participant, expand, unpack_all
from .records import Publication, Registration, Start, TaskHistory

#: Longest time between publication and deadline that the contract allows, in seconds.
MAX_DURATION = 180 * 24 * 3600


@dataclass(frozen=True)
class Terms:
    """What the rest of the audit relies on; whatever is in it has been verified, or doubted."""

    config: TaskConfig
    covenant: Covenant
    mechanism: GaussianMechanism | None
    where: Domain
    genesis: bytes


@dataclass(frozen=True)
class Lineup:
    """Who takes part: the roster, and what the contract froze of each party."""

    roster: Roster
    seats: tuple[Participant, ...]

    def has(self, party: int, role: str) -> bool:
        """Whether the party with this index is in the roster and serves ``role``."""
        return party < len(self.seats) and bool(self.seats[party].roles & ROLE_BITS[role])

    def name(self, party: int) -> str:
        """Return the party's name, or its number if it has none."""
        return self.roster.parties[party].name if party < len(self.seats) else f"party {party}"

    def check(self, value: Struct, signature: bytes, party: int, where: Domain) -> None:
        """Raise unless the party signed the value; ``signature`` is compact."""
        if party >= len(self.seats):
            raise VerificationError(f"party {party} is not in the roster")
        verify(typed_digest(where, value.hash), expand(signature), self.seats[party].signer)


def check_publication(history: TaskHistory, clock: Clock, doubts: Doubts) -> Terms | None:
    """Verify what was published; None if it cannot even be read."""
    published, state = history.publication, history.state
    where = domain(history.chain_id, history.hub, history.simulation)
    doubts.unless(
        not history.simulation or history.chain_id in DEVELOPMENT_CHAINS,
        "simulation",
        f"keys that everybody can derive are used on chain {history.chain_id}, which is no development chain",
    )
    words = (history.chain_id.to_bytes(32, "big"), history.hub, published.publisher, published.salt)
    task = keccak256(b"".join(word.rjust(32, b"\0") for word in words))
    doubts.same("task", history.task, task)
    for name in ("publisher", "reward", "accuracy_bps", "deadline", "quorum", "vrf", "openers", "roster"):
        doubts.same(f"state.{name}", getattr(state, name), getattr(published, name))
    doubts.unless(published.reward > 0, "publication.reward", "there is none")
    with doubts.about("publication.at"):
        doubts.same("state.published_block", state.published_block, clock.number(published.at))
        latest = clock.time(published.at) + MAX_DURATION
        doubts.unless(published.deadline <= latest, "publication.deadline", "is more than 180 days away")

    config_hash = keccak256(published.config)
    doubts.same("state.config", state.config, config_hash)
    genesis = Genesis(published.model, config_hash, published.roster).hash
    doubts.same("state.genesis", state.genesis, genesis)
    with doubts.about("publication.config"):
        config = TaskConfig.decode(published.config)
        covenant = Covenant.of(config)
        if covenant is None:
            raise VerificationError("the task's configuration has no terms for a ledger")
        doubts.same("publication.quorum", published.quorum, covenant.quorum)
        doubts.same("publication.vrf", published.vrf, covenant.election == "vrf")
        doubts.same("publication.accuracy_bps", published.accuracy_bps, covenant.accuracy_bps)
        return Terms(config, covenant, mechanism_of(config), where, genesis)
    return None


def check_lineup(history: TaskHistory, start: Start, terms: Terms, clock: Clock, doubts: Doubts) -> Lineup | None:
    """Verify registrations, roster, frozen participants and sigma1; None if there is no roster."""
    published, state = history.publication, history.state
    latest = _registrations(history, start, terms.where, clock, doubts)
    with doubts.about("start.at"):
        doubts.same("state.started_block", state.started_block, clock.number(start.at))
        doubts.unless(clock.time(start.at) <= published.deadline, "start", "is after the deadline")
        clock.check_order((published, start), "start.at", doubts)
    with doubts.about("publication.publisher"):
        if published.publisher not in latest:
            raise VerificationError("the publisher has not registered")
        mine = latest[published.publisher]
        doubts.unless(bool(mine.roles & ROLE_BITS["publisher"]), "publication.publisher", "has not the publisher role")
        with doubts.about("start.sigma1"):
            _check_sigma1(history, published, start, terms, mine)
    lineup = None
    with doubts.about("start.participants"):
        seats = unpack_all(Participant, start.participants)
        members = [latest[account] for account in start.accounts if account in latest]
        if len(members) != len(start.accounts) or len(seats) != len(members):
            raise VerificationError("registrations, accounts and participants do not belong together")
        roster = Roster(tuple(_party(member) for member in members))
        doubts.same("publication.roster", published.roster, roster.hash)
        for index, (member, seat) in enumerate(zip(members, seats, strict=True)):
            stake = terms.covenant.stake(roster.parties[index].name)
            follows = Participant(
                member.signer, member.account, member.vrf, stake, member.examples, member.roles
            )  # fmt: skip
            doubts.same(f"start.participants[{index}]", seat, follows)
        lineup = Lineup(roster, seats)
    if lineup is not None:
        with doubts.about("publication.config"):
            terms.covenant.check_roster(lineup.roster)
        doubts.same("state.members", state.members, len(lineup.seats))
        doubts.same("state.committee", state.committee, len(lineup.roster.with_role("committee")))
    return lineup


def check_seed(history: TaskHistory, terms: Terms, clock: Clock, doubts: Doubts) -> None:
    """Verify that the seed is made of the hash of a block that nobody could know at the start."""
    start, seed, state = history.start, history.seed, history.state
    if start is None:
        return
    with doubts.about("seed"):
        anchor = clock.number(start.at) + 1
        for postponed in history.postponements:
            # Otherwise whoever draws could have seen the first seed, and waited for another one.
            missed = clock.number(postponed.at) > anchor + 256
            doubts.unless(missed, "postponements", f"block {anchor} was within reach")
            anchor = clock.number(postponed.at) + 1
            doubts.same("postponements.anchor", postponed.anchor, anchor)
        doubts.same("state.seed_block", state.seed_block, anchor)
        if seed is None:
            doubts.same("state.seed", state.seed, bytes(32))
            return
        doubts.same("state.seed", state.seed, seed.seed)
        doubts.same("seed.anchor", seed.anchor, anchor)
        doubts.same("seed.block", clock.number(seed.block), anchor)
        doubts.same("seed.seed", seed.seed, keccak256(terms.genesis + history.task + seed.block))
        drawn = clock.number(seed.at)
        doubts.unless(anchor < drawn <= anchor + 256, "seed.at", "the seed's block was not within reach then")


def _registrations(
    history: TaskHistory, start: Start, where: Domain, clock: Clock, doubts: Doubts
) -> dict[bytes, Registration]:
    """Verify all registrations; return each account's last one before the start."""
    published = history.publication
    wanted = {*start.accounts, published.publisher}
    latest: dict[bytes, Registration] = {}
    since: dict[bytes, int] = {}
    clock.check_order((*history.registrations, start), "registrations", doubts)
    for index, entry in enumerate(history.registrations):
        which = f"registrations[{index}]"
        doubts.unless(entry.account in wanted, f"{which}.account", "takes no part in this task")
        if entry.proof:
            with doubts.about(f"{which}.proof"):
                verify(typed_digest(where, _register(entry).hash), expand(entry.proof), entry.signer)
        else:
            doubts.notes.append(f"{_label(entry)} registered through another contract: its proof is not at hand")
        before = latest.get(entry.account)
        with doubts.about(f"{which}.at"):
            if before is None or (before.signer, before.vrf) != (entry.signer, entry.vrf):
                since[entry.account] = clock.number(entry.at)
        latest[entry.account] = entry
    with doubts.about("publication.at"):
        number = clock.number(published.at)
        for account in start.accounts:
            # A key made after the publication could be chosen for its draws.
            recent = since.get(account, number) >= number
            doubts.unless(not recent, "registrations", f"the keys of {account.hex()} are not older than the task")
    return latest


def _check_sigma1(
    history: TaskHistory, published: Publication, start: Start, terms: Terms, publisher: Registration
) -> None:
    token = TaskToken(
        history.task, terms.genesis, keccak256(start.participants), published.reward, published.accuracy_bps,
        published.deadline, published.quorum, published.vrf,
    )  # fmt: skip
    verify(typed_digest(terms.where, token.hash), expand(start.sigma1), publisher.signer)


def _register(entry: Registration) -> Register:
    return Register(
        entry.account, entry.signer, entry.vrf, entry.encryption, entry.scheme_key, entry.examples, entry.roles,
        entry.name,
    )  # fmt: skip


def _party(entry: Registration) -> Party:
    return party_of(
        entry.name, entry.roles, entry.signer, entry.encryption, entry.scheme_key, entry.examples, entry.vrf
    )  # fmt: skip


def _label(entry: Registration) -> str:
    return entry.name.rstrip(b"\0").decode("ascii", "replace")
