"""Which nodes are there, and which party each of them is (stage "hello")."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from logging import INFO, WARNING

from flwr.app import ConfigRecord
from flwr.common.logger import log
from flwr.serverapp import Grid

from ..encoding import parse
from ..errors import FlbcError, ProtocolError, RosterError, TooFewNodesError
from ..node.endorsement import COMMITTEE
from ..node.pins import Pins
from ..node.scheme_keys import key_domain
from ..node.ticket import hello
from ..roster import MAX_PARTIES, TRAIN_ROLE, Party
from ..round import Signed
from . import wire
from .grid import exchange
from .node import SIMULATED_COMMITTEE

#: A node that did not answer is asked again this often before it is left out.
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Card:
    """What a node said of itself: its party, scheme keys (authority only), and the simulation's size (0: none)."""

    party: Party
    keys: bytes
    simulation: bool
    partitions: int


class Directory:
    """Asks every new node who it is, once.

    Parameters
    ----------
    parts : mapping
        Content of the hello request: scheme, key size.
    helpers : callable
        Returns the roles that the scheme needs one node each for, which nodes' scheme keys may still change.
    min_training : int
        Training nodes needed to start.
    timeout : float
        Seconds for an answer.
    pins : Pins or None
        The server's own roster, if it has one.
    committee : int (default: 0)
        Committee members needed to start.
    check : callable
        Raises if a party's scheme keys are not in order: (party, keys, simulation).
    """

    def __init__(
        self,
        parts: Mapping[str, bytes | str | int],
        helpers: Callable[[], tuple[str, ...]],
        min_training: int,
        timeout: float,
        pins: Pins | None,
        committee: int = 0,
        check: Callable[[Party, bytes, bool], None] = lambda party, keys, simulation: None,
    ) -> None:
        self._committee, self._check = committee, check
        self._parts, self._helpers, self._min_training = parts, helpers, min_training
        self._timeout, self._pins = timeout, pins
        self._cards: dict[int, Card] = {}
        self._tries: dict[int, int] = {}
        self._reasons: dict[int, str] = {}

    def party(self, node: int) -> Party | None:
        """Return the party that a node is."""
        card = self._cards.get(node)
        return None if card is None else card.party

    def online(self, grid: Grid, role: str) -> dict[int, Card]:
        """Return the nodes online that serve ``role``."""
        return {node: card for node, card in self.cards(grid).items() if card.party.has(role)}

    def cards(self, grid: Grid) -> dict[int, Card]:
        """Ask new nodes, and return all that are online and known; of two with one name, the newer."""
        ids = list(grid.get_node_ids())
        self._ask(grid, [i for i in ids if i not in self._cards and self._tries.get(i, 0) < _TRIES])
        by_name: dict[str, int] = {}
        for node in self._cards:  # in the order of arrival: a restarted node has a new id
            if node in ids:
                by_name[self._cards[node].party.name] = node
        return {node: self._cards[node] for node in by_name.values()}

    def known(self) -> list[Card]:
        """Return every party's newest card, also of nodes that are offline now."""
        return list({card.party.name: card for card in self._cards.values()}.values())

    def lacks(self, grid: Grid, role: str) -> bool:
        """Whether fewer nodes serve ``role`` than the scheme needs."""
        return len(self.online(grid, role)) < self._helpers().count(role)

    def wait(self, grid: Grid, seconds: float) -> None:
        """Wait until the nodes that the scheme needs are online.

        Raises
        ------
        TooFewNodesError
            After ``seconds``; names the flag to add.
        """
        end, told = time.monotonic() + seconds, False
        while True:
            training = self.online(grid, TRAIN_ROLE)
            missing = [role for role in dict.fromkeys(self._helpers()) if self.lacks(grid, role)]
            partitions = max((card.partitions for card in self._cards.values()), default=0)
            complete = len(self._cards) + len(self._given_up()) >= partitions
            if len(self.online(grid, COMMITTEE)) < self._committee:
                missing.append(COMMITTEE)
            if not missing and len(training) >= self._min_training and complete:
                return
            if time.monotonic() >= end:
                raise TooFewNodesError(self._cure(len(training), missing, partitions))
            if not told:
                log(INFO, "flbc: waiting up to %.0f s for nodes", seconds)
                told = True
            time.sleep(0.1 if partitions else 0.3)

    def _given_up(self) -> list[int]:
        return [node for node, tries in self._tries.items() if tries >= _TRIES and node not in self._cards]

    def _cure(self, training: int, missing: list[str], partitions: int) -> str:
        helpers = self._helpers()
        counts = {role: helpers.count(role) for role in helpers}
        roles = ", ".join(role if count == 1 else f"{count} x {role}" for role, count in counts.items())
        need = f"{self._min_training} training nodes and one node for each of: {roles or 'no role'}"
        if self._committee:
            need += f", and {self._committee} in the committee"
        have = f"{training} training nodes" + (f", none for: {', '.join(missing)}" if missing else "")
        text = f"Too few nodes: the strategy needs {need}; there are {have}. "
        if self._reasons:
            text += f"Nodes that did not answer said: {'; '.join(sorted(set(self._reasons.values())))[:600]}. "
        # Simulated committees are training nodes.
        committee = helpers.count(COMMITTEE)
        total = max(self._min_training, committee) + sum(role != COMMITTEE for role in helpers)
        simulated = f'--federation-config "num-supernodes={total} client-resources-num-cpus=1"'
        if committee > SIMULATED_COMMITTEE:
            too_many = f"a simulation has at most {SIMULATED_COMMITTEE} in the committee: lower the threshold"
            return text + (
                f"But {too_many}." if partitions else f"In simulation this is impossible, because {too_many}."
            )
        wanted = dict.fromkeys([TRAIN_ROLE] * (training < self._min_training) + missing)
        flags = " and ".join(f"--node-config 'flbc-role=\"{role}\" …'" for role in wanted)
        deployed = f"start SuperNodes with {flags or 'the roles that are missing'}, each role on a node of its own"
        if partitions:
            return text + f"Add {simulated} to `flwr run`."
        return text + f"In simulation add {simulated} to `flwr run`; in deployment {deployed}."

    def _ask(self, grid: Grid, nodes: list[int]) -> None:
        for node in nodes:
            self._tries[node] = self._tries.get(node, 0) + 1
        nonce = secrets.token_bytes(32)
        parts = {**self._parts, "nonce": nonce}
        replies = exchange(grid, [wire.request(wire.HELLO, parts, node, 0) for node in nodes], self._timeout)
        for node, reply in replies.items():
            if reply.has_error():
                reason = (reply.error.reason or "").strip().splitlines()
                text = reason[-1] if reason else f"error {reply.error.code}"
                if reply.error.code in (1, 2):  # the app itself was called: no mod answered
                    text += " (does the ClientApp have mods=[SecureMod()]?)"
                self._reasons[node] = text
                log(WARNING, "flbc: node %d did not say who it is: %s", node, text)
                continue
            try:
                self._cards[node] = self._read(wire.read_record(reply.content), nonce)
                self._reasons.pop(node, None)
            except FlbcError as error:
                self._reasons[node] = str(error)
                self._tries[node] = _TRIES
                log(WARNING, "flbc: node %d is left out: %s", node, error)

    def _read(self, record: ConfigRecord | None, nonce: bytes) -> Card:
        """Check what a node says of itself: form, signature, and that no other node says the same."""
        if record is None:
            raise RosterError("its reply holds no flbc record (does the ClientApp have mods=[SecureMod()]?)")
        parts = wire.bytes_of(record, "party", "keys", "signature")
        simulation, partitions = record.get("simulation"), wire.number_of(record, "partitions")
        if not isinstance(simulation, bool) or not 0 <= partitions <= (MAX_PARTIES if simulation else 0):
            raise ProtocolError("it says something impossible about the simulation")
        party = Party.from_dict(parse(parts["party"], "party"))
        signed = Signed(hello(nonce, parts["party"], parts["keys"]), parts["signature"])
        signed.verify(party.address, key_domain(simulation))
        for known in (card.party for card in self._cards.values()):
            shared = (party.name == known.name, party.address == known.address, party.encryption == known.encryption)
            if any(shared) and not all(shared):
                raise RosterError(f"its name or keys are those of {known.name!r}, another node")
        if self._pins is not None:
            self._pins.check(party)
        self._check(party, parts["keys"], simulation)
        return Card(party, parts["keys"], simulation, partitions)
