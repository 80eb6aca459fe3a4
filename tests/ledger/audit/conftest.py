"""An embedded chain with contracts, and one finished task that has everything in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flbc.ledger.audit import AuditReport, audit
from flbc.ledger.chain import connect
from flbc.ledger.history import read_task
from flbc.ledger.records import TaskHistory
from flbc.ledger.registry import registration
from flbc.privacy import GaussianMechanism
from flbc.round import Signed
from tests.support.ledger import Consortium, Setting, deploy_contracts, mine

SMALL = Setting(hospitals=3, members=2, overlap=1)


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """An embedded chain with contracts."""
    folder = tmp_path_factory.mktemp("audit")
    with connect(f"embedded:{folder / 'chain.sqlite'}") as chain:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FLBC_HOME", str(folder))
            deployment = deploy_contracts(chain, folder)
        yield chain, deployment


@pytest.fixture(autouse=True)
def fast_epsilon(monkeypatch):
    """Remember the accountant's answers: thousands of audits ask for the same few."""
    ask, known = GaussianMechanism.epsilon_after, {}

    def remembered(self: GaussianMechanism, rounds: int) -> float:
        key = (self, rounds)
        if key not in known:
            known[key] = ask(self, rounds)
        return known[key]

    monkeypatch.setattr(GaussianMechanism, "epsilon_after", remembered)


@pytest.fixture
def begin(world, request):
    """Return a function that starts a task of its own."""
    count = 0

    def make(setting: Setting = SMALL, **publish: Any) -> Consortium:
        nonlocal count
        count += 1
        made = Consortium(*world, setting, salt=f"{request.node.name}/{count}")
        made.register_all()
        mine(made.chain)
        made.publish(**publish)
        made.start()
        made.draw_seed()
        return made

    return make


def history_of(run: Consortium) -> TaskHistory:
    return read_task(run.chain, run.deployment, run.task)


def audit_of(run: Consortium) -> AuditReport:
    return audit(history_of(run))


@pytest.fixture(scope="session")
def finished(world) -> TaskHistory:
    """A small run with everything in it: a second attempt, a rejected party, a suspension, a second registration."""
    run = Consortium(*world, SMALL, salt="finished")
    run.register_all()
    # The same keys again: the newer one counts, the older one says how old the keys are.
    actor = replace(run.actors[run.hospitals[0]], stake=0)
    registry, entry = run.hub.registry, registration(actor.party, actor.account.address)
    proof = Signed.make(entry, actor.keys.signing, run.where).signature
    run.send("register again", actor.account, registry.register(entry, proof))
    mine(run.chain)
    run.publish()
    run.start()
    run.draw_seed()
    run.record(run.make_round(1))
    second = run.ranking()[1]
    left_out = run.hospitals[2] if second != run.hospitals[2] else run.hospitals[1]
    run.record(run.make_round(2, attempt=1, leader=second, rejected=[left_out]))
    away = run.actors[run.committee[-1]].account.address
    for on in (True, False):
        run.send("suspend", run.authority, registry.suspend(away, on))
    run.settle()
    for party in run.amounts():
        run.claim(party)
    return history_of(run)
