"""The ledger of one run: records go through an outbox to the hub, in order, whatever the chain's node does."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from logging import getLogger
from pathlib import Path

from ..crypto import keystore
from ..crypto.signing import SigningKey, checksum_address
from ..errors import ChainResetError, ConfigError, FlbcError, LedgerError, RevertedError
from ..node.identity import key_password
from ..roster import Party, Roster
from ..task import TaskConfig
from . import accounts, deployment, development, publishing
from .chain import Chain, connect
from .deployment import Deployment
from .files import ProcessLock
from .hub import Hub
from .journal import State
from .outbox import Outbox
from .packing import GWEI
from .publishing import TaskFile
from .record import RoundRecord, SettleRecord, Started
from .settings import EMBEDDED, Ledger

_LOG = getLogger("flwr")
# Limits, not costs: see contracts/gas.json for those.
_ROUND_GAS, _ROUND_PARTY_GAS = 600_000, 12_000
_SETTLE_GAS, _SETTLE_PARTY_GAS = 600_000, 12_000
#: Blocks after which a public chain is not expected to undo a record.
_CONFIRMATIONS = 12
#: Seconds between two looks at what is queued.
_PUMP_SECONDS = 0.5


class ChainBook:
    """Writes one run to a chain. Made by :meth:`open`; see :class:`flbc.ledger.record.Book`."""

    def __init__(self, settings: Ledger, hub: Hub, outbox: Outbox) -> None:
        self._settings, self._hub, self._outbox = settings, hub, outbox
        self.chain_id, self.hub, self.link = hub.chain.chain_id, hub.address, settings.link
        self.simulation = hub.deployment.simulation
        self._roster: Roster | None = None
        self._suspensions, self._out = 0, frozenset[str]()
        self._stop = threading.Event()
        self._turn: ProcessLock | None = None
        self._thread: threading.Thread | None = None
        self._trouble = ""
        self._refused = ""  # why nothing more can be recorded
        self._watched: dict[str, int] = {}  # blocks that may still be refused: key and round

    @classmethod
    def open(cls, settings: Ledger) -> ChainBook:
        """Connect, check chain, contracts and relayer.

        Raises
        ------
        ConfigError, LedgerError
            With what to do.
        """
        chain = connect(settings.url)
        try:
            key = relayer_key(chain, settings.key)
            depth = _depth(chain, settings)
            outbox = Outbox(chain, key, development.outbox_path(chain, key.address), depth)
            try:
                hub = Hub(chain, _deployment(chain, outbox, settings))
            except BaseException:
                outbox.close()
                raise
        except BaseException:
            chain.close()
            raise
        return cls(settings, hub, outbox)

    @property
    def _rpc(self) -> str:
        """The chain's address as messages may show it: without a path, which may be an access key."""
        name = self._hub.chain.name
        return name if name.startswith("http") else EMBEDDED

    # ------------------------------------------------------------------ before the first round
    def stakes(self, parties: Sequence[Party]) -> dict[str, int]:
        """Return every party's stake in gwei, after checking that the Registry holds exactly its keys.

        Raises
        ------
        RosterError
            If a party is not registered, or with other data than it says.
        LedgerError
            If a party is suspended or leaving.
        """
        if self.simulation:
            # Until the task is published: another run would spend what this one put on the publisher's account.
            self._turn = self._turn or development.turn(self._hub.chain)
            development.enroll(self._hub, self._outbox, parties, self._settings.reward_wei)
        members = {party.name: self._hub.registry.find(party)[1] for party in parties}
        for name, member in members.items():  # the contract refuses them, but only when the reward is in escrow
            if member.suspended or member.unlock_at:
                why, cure = "is suspended", "the authority lifts it with `flbc suspend ACCOUNT --lift`"
                if not member.suspended:
                    why, cure = "takes its stake back", "it comes back with `flbc register`"
                raise LedgerError(f"Party {name!r} {why} on this chain: {cure}, or start without its node")
        return {name: member.stake // GWEI for name, member in members.items()}

    def start(self, config: TaskConfig, roster: Roster, model: bytes) -> Started:
        """Have the task published and started, and its seed drawn.

        On contracts for simulation the run does it itself; else it writes the task's file and waits for the publisher.
        """
        settings, parties = self._settings, len(roster.parties)
        self._roster = roster
        self._outbox.check_funds(config.rounds + 2, _ROUND_GAS + _ROUND_PARTY_GAS * parties)
        file = TaskFile(
            1, self.chain_id, self.hub, secrets.token_bytes(32), model, config.encoded, roster.encoded,
            settings.reward_wei, int(settings.deadline),
        )  # fmt: skip
        try:
            task = development.publish(self._hub, file) if self.simulation else self._published(file)
        finally:
            self._end_turn()
        publishing.draw_seed(self._hub, self._outbox, task, confirmations=_depth(self._hub.chain, settings))
        _LOG.info("flbc: task %s on chain %d, hub %s", task.hex(), self.chain_id, checksum_address(self.hub))
        started = publishing.started(self._hub, task, config, roster, model)
        self._thread = threading.Thread(target=self._pump, name="flbc-outbox", daemon=True)
        self._thread.start()
        return started

    def _end_turn(self) -> None:
        if self._turn is not None:
            self._turn.release()
            self._turn = None

    def _published(self, file: TaskFile) -> bytes:
        """Wait for the publisher to publish and start this very task.

        Whoever sees the publisher's transaction could publish a copy with another reward first, so off development
        chains the publisher has to be known.
        """
        settings, path = self._settings, file.save()
        if not (settings.publisher or self._hub.chain.development):
            raise ConfigError("Name the publisher's account: Ledger(publisher='0x…') or run-config ledger.publisher")
        _LOG.info(
            "flbc: waiting up to %.0f s for the publisher: flbc task publish %s --rpc %s --key PUBLISHER.key",
            settings.publish_wait, path, self._rpc,
        )  # fmt: skip
        first, end = self._hub.chain.height(), time.monotonic() + settings.publish_wait
        while True:
            for task, publisher in publishing.published(self._hub, file.genesis, max(0, first - 1)):
                if settings.publisher not in ("", checksum_address(publisher)):
                    continue
                # Another run of the same model with the same parties has the same genesis, but not this salt.
                if task != self._hub.task_id(publisher, file.salt):
                    continue
                state = self._hub.task(task)
                if state.reward < file.reward:
                    self._tell(f"task {task.hex()[:16]}… offers {state.reward} wei, this run asks for {file.reward}")
                elif state.status == "started":
                    return task
            if time.monotonic() > end:
                raise LedgerError(
                    f"Nobody published and started the task within {settings.publish_wait:g} s; the publisher runs "
                    f"`flbc task publish {path} --rpc {self._rpc} --key PUBLISHER.key`; then start the run again"
                )
            time.sleep(1)

    # ------------------------------------------------------------------ rounds
    def suspended(self) -> frozenset[str]:
        """Return the names of parties that the authority of the contracts has suspended, as last seen.

        The contract refuses a block with any signature of theirs, so a round has to do without them. Asks no node: a
        round waits for none.
        """
        return self._out

    def check(self) -> None:
        """Raise :class:`LedgerError` if the contract refused a block of this run."""
        if self._refused:
            raise LedgerError(f"Nothing more is opened in this run: {self._refused}. Start a new one")

    def record(self, record: RoundRecord) -> None:
        """Queue a block; with ``require_final`` wait until nothing can undo it.

        Raises
        ------
        RevertedError
            With ``require_final``, if the contract refuses it: the block is not on the chain, and will not be.
        """
        label = record.label
        key = f"round/{label.task.hex()}/{label.round}/{label.attempt}"
        parties = len(record.submissions) + len(record.votes)
        self._outbox.submit(key, self._hub.submit_round(record), _ROUND_GAS + _ROUND_PARTY_GAS * parties)
        self._watched[key] = label.round
        if self._settings.require_final:
            self._wait(key, float("inf"))

    def settle(self, record: SettleRecord) -> None:
        """Write the settlement after everything that is queued; in simulation fetch the payouts too.

        Whether they can be fetched now does not matter: they stay there for whoever claims them.

        Raises
        ------
        RevertedError
            If the contract refuses it.
        LedgerError
            If it is not on the chain in time; it stays queued.
        """
        key = f"settle/{record.token.task.hex()}"
        parties = len(record.payouts) // 18 + len(record.votes)
        self._outbox.submit(key, self._hub.settle(record), _SETTLE_GAS + _SETTLE_PARTY_GAS * parties)
        self._wait(key, self._settings.settle_wait)
        if self.simulation and self._roster is not None:
            try:
                self._turn = development.turn(self._hub.chain)
                development.claim_all(self._hub, record.token.task, self._roster.parties, record.payouts)
            except FlbcError as error:
                _LOG.warning("flbc: not all payouts were fetched, `flbc task claim` does it later: %s", error)
            finally:
                self._end_turn()

    def _wait(self, key: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                self._outbox.wait(key, min(30.0, max(0.1, end - time.monotonic())), final=self._settings.require_final)
                return
            except (RevertedError, ChainResetError):
                raise
            except LedgerError as error:
                if time.monotonic() >= end:
                    raise LedgerError(
                        f"{error}. It stays queued: `flbc task sync --rpc {self._rpc}` sends it"
                    ) from None
                self._tell(str(error))
                time.sleep(_PUMP_SECONDS)

    def _pump(self) -> None:
        while not self._stop.is_set():
            try:
                if not self._outbox.pump():
                    self._trouble = ""
                self._tell_refused()
                self._look_for_suspensions()
            except FlbcError as error:
                self._tell(str(error))
            self._stop.wait(_PUMP_SECONDS)

    def _look_for_suspensions(self) -> None:
        registry = self._hub.registry
        changes = registry.suspensions()
        if changes == self._suspensions or self._roster is None:
            return
        accounts = {party.name: registry.account_of(party.address) for party in self._roster.parties}
        out = frozenset(name for name, who in accounts.items() if who and registry.member(who).suspended)
        if out != self._out:
            _LOG.warning("flbc: suspended, and left out of the rounds: %s", ", ".join(sorted(out)) or "nobody any more")
        self._out, self._suspensions = out, changes

    def _tell(self, trouble: str) -> None:
        """Log what keeps records from landing, once."""
        if trouble != self._trouble:
            self._trouble = trouble
            _LOG.warning("flbc: the ledger has to wait, records are queued in order: %s", trouble)

    def _tell_refused(self) -> None:
        """Log blocks that the contract refused, each once."""
        for key, number in list(self._watched.items()):
            entry = self._outbox.get(key)
            if entry.state not in (State.FINAL, State.REVERTED):
                continue
            del self._watched[key]
            if entry.state is State.REVERTED:
                why = self._hub.chain.reverted(entry.reason or b"")
                self._refused = f"the block of round {number} is not recorded, nor are those after it: {why}"
                _LOG.warning("flbc: %s", self._refused)

    def close(self) -> None:
        """Send what can be sent, and stop; what is queued then stays in the outbox."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._flush()
            left = sum(entry.state is not State.MINED for entry in self._outbox.pending())
            if left:
                _LOG.warning("flbc: %d records are still queued; `flbc task sync` sends them", left)
        self._end_turn()
        self._outbox.close()
        self._hub.chain.close()

    def _flush(self) -> None:
        """Give the last records time to get into a block, unless the node does not take them."""
        end = time.monotonic() + self._settings.settle_wait
        try:
            while self._outbox.pump() and time.monotonic() < end:
                if not any(entry.state is State.SENT for entry in self._outbox.pending()):
                    break
                time.sleep(_PUMP_SECONDS)
            self._tell_refused()
        except FlbcError as error:
            self._tell(str(error))


def _depth(chain: Chain, settings: Ledger) -> int:
    """Return how many blocks on top make a record final."""
    if settings.confirmations is not None:
        return settings.confirmations
    return 0 if chain.development else _CONFIRMATIONS


def relayer_key(chain: Chain, path: str | Path | None) -> SigningKey:
    """Return the key of the account that pays gas: from a key file, or the development account's.

    Raises
    ------
    ConfigError
        If there is no key file and this is no development chain.
    """
    if path is not None:
        return keystore.load(Path(path), key_password({})).signing
    if not chain.development:
        raise ConfigError(
            f"Chain {chain.chain_id} is no development chain: name the relayer's key file, Ledger(key=...) or "
            "run-config ledger.key; `flbc keys new relayer` makes one, which needs some ether for gas"
        )
    return accounts.development_key()


def _deployment(chain: Chain, outbox: Outbox, settings: Ledger) -> Deployment:
    """Return the checked deployment; the embedded chain gets one of its own."""
    if settings.deployment is not None:
        found = Deployment.load(Path(settings.deployment))
        deployment.check(chain, found)
        return found
    if settings.url.partition(":")[0] != EMBEDDED:
        return deployment.find(chain)
    path = deployment.path_of(chain.chain_id, chain.genesis)
    if path.exists():
        try:
            return deployment.find(chain)
        except LedgerError as error:  # most likely of another version of flbc; its records stay on the chain
            aside = path.with_name(f"{path.name}.until-{int(time.time())}")
            _LOG.warning(
                "flbc: new contracts on the embedded chain, the deployment before is kept as %s: %s", aside, error
            )
            path.replace(aside)
    made = deployment.deploy(
        chain, outbox, authority=outbox.account, unbonding=3600, simulation=True, label=str(chain.height())
    )
    made.save()
    return made
