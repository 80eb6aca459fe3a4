"""``flbc deploy``: put hub and registry on a chain."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..crypto.signing import checksum_address, parse_address
from ..errors import ChainUnavailableError, ConfigError, LedgerError
from .amounts import span
from .console import facts, say, show, waiting
from .options import EMBEDDED, Payer, Rpc
from .session import account_of, chain_at, paying_key

if TYPE_CHECKING:
    from ..ledger.chain import Chain
    from ..ledger.deployment import Deployment

app = typer.Typer()


@app.command(epilog="Example: flbc deploy --rpc http://127.0.0.1:8545")
def deploy(
    rpc: Rpc = EMBEDDED,
    key: Payer = None,
    authority: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Account that may suspend parties; default: that which pays."),
    ] = None,
    treasury: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Account that gets what is slashed; default: the authority's.")
    ] = None,
    unbonding: Annotated[
        int | None,
        typer.Option(min=0, help="Seconds that stakes stay after a task or after leaving; default a week."),
    ] = None,
    simulation: Annotated[
        bool | None,
        typer.Option(
            "--simulation/--no-simulation",
            help="For development identities, whose keys everybody knows; default: yes on a development chain.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Deployment file; default: in FLBC_HOME.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Deploy although there is a deployment.")] = False,
) -> None:
    """Deploy the contracts and write the deployment file, which every party of the consortium uses."""
    wanted = _Terms(
        parse_address(authority) if authority else None,
        parse_address(treasury) if treasury else None,
        unbonding,
        simulation,
    )
    with chain_at(rpc) as chain:
        from ..ledger.deployment import path_of

        path = out or path_of(chain.chain_id, chain.genesis)
        there = None if force else _standing(chain, path, named=out is not None)
        if there is not None:
            wanted.check(_Terms.of(chain, there))
            say("The contracts are on this chain already; nothing was changed (--force deploys others)", "yellow")
        else:
            there = _deploy(chain, key, wanted, again=path.exists())
            _save(there, path)
        _show(chain, there, path)


@dataclass(frozen=True)
class _Terms:
    """What contracts are deployed with; None: not asked for."""

    authority: bytes | None
    treasury: bytes | None
    unbonding: int | None
    simulation: bool | None

    @classmethod
    def of(cls, chain: Chain, there: Deployment) -> _Terms:
        from ..ledger.registry import Registry

        registry = Registry(chain, there.registry)
        return cls(registry.authority(), registry.treasury(), registry.unbonding(), there.simulation)

    def check(self, found: _Terms) -> None:
        """Do not pass contracts off as what was asked for if they were deployed with other arguments."""
        asked = {name: value for name, value in vars(self).items() if value is not None}
        different = [f"--{name}" for name, value in asked.items() if value != getattr(found, name)]
        if different:
            raise ConfigError(
                f"The contracts that are on this chain already were deployed with another {', '.join(different)}: add "
                "--force to deploy others, and have every party use the new file"
            )


def _standing(chain: Chain, path: Path, *, named: bool) -> Deployment | None:
    """Return the valid deployment in a file, None if there is none.

    Raises
    ------
    ConfigError
        If the user named a file that is something else.
    """
    from ..ledger.deployment import Deployment, check

    if not path.exists():
        return None
    try:
        found = Deployment.load(path)
        check(chain, found)
    except ChainUnavailableError:
        raise
    except (ConfigError, LedgerError) as error:
        if named:
            raise ConfigError(f"{path} is no deployment on this chain, take another --out: {error}") from None
        say(f"The deployment in {path} cannot be used any more: {error}", "yellow")
        return None
    return found


def _deploy(chain: Chain, key: Path | None, wanted: _Terms, *, again: bool) -> Deployment:
    from ..ledger.deployment import UNBONDING, deploy

    with account_of(chain, paying_key(chain, key)) as account, waiting("deploying hub and registry"):
        return deploy(
            chain,
            account.outbox,
            authority=wanted.authority or account.address,
            treasury=wanted.treasury,
            unbonding=UNBONDING if wanted.unbonding is None else wanted.unbonding,
            simulation=chain.development if wanted.simulation is None else wanted.simulation,
            # The first time the same arguments give the same contracts, so that a command that died can be repeated.
            label=str(time.time_ns()) if again else "",
        )


def _save(made: Deployment, path: Path) -> None:
    try:
        if path.exists():  # old contracts may hold escrows and stakes: their addresses must not be lost
            old = path.with_name(f"{path.name}.until-{time.strftime('%Y%m%dT%H%M%S')}")
            path.replace(old)
            say(f"kept the old deployment as {old}")
        made.save(path)
    except OSError as error:
        raise ConfigError(
            f"The contracts are deployed, but {path} cannot be written ({error.strerror}): run the command again with "
            "another --out"
        ) from None


def _show(chain: Chain, there: Deployment, path: Path) -> None:
    terms, receipt = _Terms.of(chain, there), chain.receipt(there.transaction)
    gas = "" if receipt is None else f", gas {receipt['gasUsed']:,}"
    rows = [
        ("chain", f"{there.chain_id} ({chain.name})"),
        ("hub", checksum_address(there.hub)),
        ("registry", checksum_address(there.registry)),
        ("authority", checksum_address(terms.authority or b"")),
        ("treasury", checksum_address(terms.treasury or b"")),
        ("unbonding", span(terms.unbonding or 0)),
        ("for", "simulation: development identities only" if there.simulation else "parties with key files"),
        ("deployed", f"block {there.block_number}{gas}"),
        ("file", path),
    ]
    show(facts(rows))
