"""``flbc chain``: a development node for several processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ..crypto import keystore
from ..crypto.signing import checksum_address, parse_address
from ..errors import ConfigError, LedgerError
from .amounts import ether, parse_ether
from .console import facts, say, show, waiting
from .options import EMBEDDED, Rpc
from .session import account_of, chain_at, paying_key

if TYPE_CHECKING:
    from ..ledger.nodes import Node

app = typer.Typer(no_args_is_help=True, help="Run a development chain that several processes can share.")
#: Ports that the files in configs/ name.
_CONFIGURED = {"anvil": 8545, "ganache": 7545}
_FEDERATION = '"num-supernodes=5 client-resources-num-cpus=1"'
#: SIGHUP: the node has a session of its own, so a terminal that is closed would not end it.
_SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


@app.command(epilog="Example: flbc chain up --kind ganache --port 7545 --state ganache-state")
def up(
    kind: Annotated[str, typer.Option(help="anvil or ganache.")] = "anvil",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="On 127.0.0.1; 0 takes a free one.")] = 8545,
    state: Annotated[
        Path | None,
        typer.Option(
            help="Keep the chain there (Anvil: a file, Ganache: a folder). Without it the chain is gone at the end."
        ),
    ] = None,
    log: Annotated[Path | None, typer.Option(help="The node's output; default: in FLBC_HOME/logs.")] = None,
) -> None:
    """Start Anvil or Ganache on this machine, and keep it until Ctrl-C. Its accounts are worth nothing elsewhere."""
    from ..ledger import nodes
    from ..ledger.files import home

    output = log or home() / "logs" / f"{kind}.log"
    with _stoppable():
        with waiting(f"starting {kind}"):
            node = nodes.start(kind, port, state=state, log=output)
        _run(node, state)


@app.command(epilog="Example: flbc chain fund cleveland.key 10 --rpc http://127.0.0.1:8545")
def fund(
    who: Annotated[str, typer.Argument(metavar="FILE-OR-ACCOUNT", help="A key file, or an account's address.")],
    amount: Annotated[str, typer.Argument(metavar="ETHER", help="How much to send.")] = "10",
    rpc: Rpc = EMBEDDED,
) -> None:
    """Send ether from a development chain's own account, for stakes and gas of parties that try things out."""
    wei = parse_ether(amount, "ETHER")
    account = parse_address(who if who.startswith("0x") else str(keystore.read_public(Path(who))["address"]))
    with chain_at(rpc) as chain:
        from ..ledger.transactions import Call

        if not chain.development:
            raise ConfigError(f"Chain {chain.chain_id} is no development chain: somebody who has ether must send some")
        with account_of(chain, paying_key(chain, None)) as sender:
            sender.send(f"sending {ether(wei)}", Call(account, value=wei))
        say(f"{checksum_address(account)} holds {ether(chain.balance(account))} now")


def _run(node: Node, state: Path | None) -> None:
    """Wait until somebody stops the node."""
    try:
        _tell(node, state)
        code = node.process.wait()
    except KeyboardInterrupt:
        for number in _SIGNALS:  # a second Ctrl-C must not leave the node behind
            signal.signal(number, signal.SIG_IGN)
        node.stop()
        say(f"{node.kind} was stopped")
    except BaseException:
        node.kill()
        raise
    else:
        raise LedgerError(f"{node.kind} ended by itself with code {code}: see {node.log}")


def _tell(node: Node, state: Path | None) -> None:
    from ..ledger.nodes import CHAIN_IDS

    rows = [
        ("URL", node.url),
        ("chain id", CHAIN_IDS[node.kind]),
        ("process", node.pid),
        ("state", state or "in memory: gone when the node ends"),
        ("log", node.log),
        ("stop", "Ctrl-C"),
    ]
    show(facts(rows))
    config = f"configs/{node.kind}.toml" if node.port == _CONFIGURED[node.kind] else f"'ledger.url=\"{node.url}\"'"
    for line in (
        "Next, in another terminal:",
        f"  flbc deploy --rpc {node.url}",
        f"  flwr run strategies/paillier -c {config} --federation-config {_FEDERATION} --stream",
        f"  flbc audit --rpc {node.url}",
    ):
        typer.echo(line)  # commands must not be wrapped


@contextmanager
def _stoppable() -> Iterator[None]:
    """Have SIGTERM and a closed terminal do what Ctrl-C does; at the end as it was before."""
    before: dict[signal.Signals, Any] = {number: signal.signal(number, _interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
