"""A run takes only the task that it agreed to; publishing twice is the same as once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flbc.crypto.signing import keccak256
from flbc.errors import ConfigError, LedgerError, RevertedError, RosterError
from flbc.ledger import publishing
from flbc.ledger.chain import Chain
from flbc.ledger.outbox import Outbox
from flbc.ledger.publishing import TaskFile
from tests.support.ledger import Consortium, Setting, deploy_contracts


@pytest.fixture
def made(embedded: Chain, tmp_path: Path) -> Consortium:
    c = Consortium(embedded, deploy_contracts(embedded, tmp_path), Setting(hospitals=3, members=0, overlap=3))
    c.register_all()
    return c


@pytest.fixture
def outbox(made: Consortium, tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(made.chain, made.publisher.account, tmp_path / "publisher.sqlite") as found:
        yield found


def file_of(c: Consortium) -> TaskFile:
    return TaskFile(
        1, c.chain.chain_id, c.deployment.hub, c.salt, c.model, c.config.encoded, c.roster.encoded, c.setting.reward,
        3600,
    )  # fmt: skip


def test_publish_start_and_seed(made: Consortium, outbox: Outbox) -> None:
    file = file_of(made)
    assert file.genesis == made.genesis
    assert TaskFile.load(file.save()) == file
    task = publishing.publish(made.hub, outbox, file, 7, 3600)
    assert task == made.task
    assert publishing.published(made.hub, file.genesis, 0) == [(task, made.publisher.account.address)]
    assert publishing.published(made.hub, keccak256(b"another"), 0) == []
    publishing.start(made.hub, outbox, task, file, made.publisher.keys.signing)
    seed = publishing.draw_seed(made.hub, outbox, task)
    found = publishing.started(made.hub, task, made.config, made.roster, made.model)
    assert (found.task, found.genesis, found.seed, found.reward) == (task, made.genesis, seed, 7)


def test_every_step_may_be_repeated(made: Consortium, outbox: Outbox) -> None:
    file, signer = file_of(made), made.publisher.keys.signing
    for _ in range(2):
        task = publishing.publish(made.hub, outbox, file, 7, 3600)
        publishing.start(made.hub, outbox, task, file, signer)
        publishing.draw_seed(made.hub, outbox, task)
    assert len(publishing.published(made.hub, file.genesis, 0)) == 1
    assert made.chain.balance(made.deployment.hub) == 7


def test_a_file_for_another_hub_or_chain(made: Consortium, outbox: Outbox) -> None:
    for changes in ({"chain_id": 1}, {"hub": b"\x01" * 20}):
        with pytest.raises(ConfigError, match="The task file is for hub"):
            publishing.publish(made.hub, outbox, replace(file_of(made), **changes), 7, 3600)  # type: ignore[arg-type]


def test_publishing_without_funds_is_refused_before_sending(made: Consortium, outbox: Outbox) -> None:
    with pytest.raises(LedgerError, match=r"has .* ether .* send it"):
        publishing.publish(made.hub, outbox, file_of(made), 10**24, 3600)
    assert outbox.pending() == []


def test_a_deadline_beyond_the_contracts_limit(made: Consortium, outbox: Outbox) -> None:
    with pytest.raises(RevertedError, match="BadDeadline"):
        publishing.publish(made.hub, outbox, file_of(made), 7, 365 * 86_400)


def test_an_unregistered_party_is_named_with_the_cure(made: Consortium, outbox: Outbox) -> None:
    parties = list(made.roster.parties)
    parties[1] = replace(parties[1], address=b"\x01" * 20)
    file = replace(file_of(made), roster=replace(made.roster, parties=tuple(parties)).encoded)
    task = publishing.publish(made.hub, outbox, file, 7, 3600)
    with pytest.raises(RosterError, match=r"'hospital-000' is not registered .*flbc register"):
        publishing.start(made.hub, outbox, task, file, made.publisher.keys.signing)


def test_a_stake_that_changed_meanwhile(made: Consortium, outbox: Outbox) -> None:
    task = publishing.publish(made.hub, outbox, file_of(made), 7, 3600)
    actor = next(actor for actor in made.actors if actor.stake)
    made.send("top up", actor.account, made.hub.registry.top_up(10**9))
    with pytest.raises(LedgerError, match=f"The stake of '{actor.name}' is"):
        publishing.start(made.hub, outbox, task, file_of(made), made.publisher.keys.signing)


# ---------------------------------------------------------------------- a publisher that plays games
@pytest.mark.parametrize(
    "changes",
    [{"accuracy_bps": 9999}, {"quorum": 2}, {"vrf": False}, {"openers": 2}],
    ids=["a bar nobody reaches", "another quorum", "no proofs", "other openers"],
)
def test_other_terms_than_the_runs_are_refused(made: Consortium, changes: dict[str, Any]) -> None:
    """The genesis binds the configuration, not the arguments beside it: work for them could go unpaid."""
    made.publish(**changes)
    terms = {"accuracy_bps": 7000, "quorum": made.quorum, "vrf": True} | changes
    terms.pop("openers", None)
    made.send("start", made.publisher.account, made.start_call(**terms))
    made.draw_seed()
    with pytest.raises(LedgerError, match="was published with other terms"):
        publishing.started(made.hub, made.task, made.config, made.roster, made.model)


def test_other_participants_than_the_rosters_are_refused(made: Consortium) -> None:
    made.publish()
    left = [actor for actor in made.actors if actor.name != "authority"]
    made.actors = left
    made.start()
    made.draw_seed()
    with pytest.raises(LedgerError, match="other participants or stakes"):
        publishing.started(made.hub, made.task, made.config, made.roster, made.model)


def test_a_task_whose_deadline_has_passed(made: Consortium) -> None:
    made.setting = replace(made.setting, duration=30)
    made.publish()
    made.start()
    made.draw_seed()
    from tests.support.ledger import pass_time

    pass_time(made.chain, made.deadline)
    with pytest.raises(LedgerError, match="has passed"):
        publishing.started(made.hub, made.task, made.config, made.roster, made.model)
