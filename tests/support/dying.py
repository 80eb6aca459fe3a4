"""Runs on the embedded chain that are killed with -9 at a chosen point.

``python -m tests.support.dying``: reads lines "POINT HOME", and for each forks a process that runs two rounds in that
FLBC_HOME and dies at the point; answers with how it ended (the signal's number, negative). Forking saves the seconds
that loading Flower and py-evm takes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

#: Seconds from publishing to the deadline.
DEADLINE = 1000
#: Points that a run which does not wait for its records would reach at any time, in its background thread.
_IN_STEP = ("signed", "sent", "receipt", "settlement row")


def die(*_: Any, **__: Any) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def before(owner: Any, name: str, when: Callable[..., bool] = lambda *_: True) -> None:
    """Die when a function is called."""
    original = getattr(owner, name)
    setattr(owner, name, lambda *a, **k: die() if when(*a) else original(*a, **k))


def after(owner: Any, name: str, when: Callable[..., bool] = lambda *_: True) -> None:
    """Die when a function returns."""
    original = getattr(owner, name)

    def call(*arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        if when(*arguments):
            die()
        return result

    setattr(owner, name, call)


def arm(point: str) -> None:
    """Set the trap. The block that rows, signatures and receipts are about is that of round 2."""
    from flbc.flower import strategy
    from flbc.flower.helpers import Helpers
    from flbc.ledger import development, publishing
    from flbc.ledger.book import ChainBook
    from flbc.ledger.chain import Chain
    from flbc.ledger.hub import Hub
    from flbc.ledger.journal import Journal, State

    calls: list[str] = []
    hashes: set[bytes] = set()

    def second(*_: Any) -> bool:
        calls.append(point)
        return len(calls) == 2

    def block(_: Any, what: Any, *rest: Any) -> bool:
        key = what if isinstance(what, str) else what.key
        return key.startswith("round/") and key.endswith("/2/0")

    def mined(journal: Any, entry: Any, state: Any, *_: Any) -> bool:
        return block(journal, entry) and state in (State.MINED, State.FINAL)

    def row(kind: str) -> Callable[..., bool]:
        return lambda _, key, *rest: key.startswith(kind) and second() if kind == "register/" else key.startswith(kind)

    if point == "sent":
        keep = Journal.keep

        def remember(journal: Any, entry: Any, nonce: int, transaction: Any, height: int) -> None:
            keep(journal, entry, nonce, transaction, height)
            if block(journal, entry):
                hashes.add(transaction.hash)

        Journal.keep = remember  # type: ignore[method-assign]
    traps: dict[str, Callable[[], None]] = {
        "register row": lambda: after(Journal, "add", row("register/")),
        "publish row": lambda: after(Journal, "add", row("publish/")),
        "published": lambda: before(publishing, "start"),
        "started": lambda: before(publishing, "draw_seed"),
        "before the row": lambda: before(ChainBook, "record", second),
        "row": lambda: after(Journal, "add", block),
        "signed": lambda: after(Journal, "keep", block),
        "sent": lambda: after(Chain, "offer", lambda _, raw, transaction: transaction in hashes),
        "receipt": lambda: after(Journal, "update", mined),
        "unopened": lambda: before(Helpers, "open", second),
        "opened": lambda: after(Helpers, "open", second),
        "before settling": lambda: before(strategy, "settle"),
        "settlement row": lambda: after(Journal, "add", row("settle/")),
        "settled": lambda: before(development, "claim_all"),
        "claiming": lambda: before(Hub, "claim", second),
    }
    traps[point]()


def run_in(home: str, point: str, app: Any, rounds: int = 2) -> NoReturn:
    """Run in this process, and die."""
    from flbc import Ledger
    from tests.flower.conftest import run, secure
    from tests.support.local_grid import LocalGrid

    os.environ["FLBC_HOME"] = home
    log = os.open(f"{home}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        if point != "nowhere":
            arm(point)
        strategy = secure(ledger=Ledger(accuracy=0.1, deadline=DEADLINE, require_final=point in _IN_STEP))
        run(strategy, LocalGrid(app, 5), rounds)
        os._exit(0 if strategy.settled else 1)
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        os._exit(2)


def main() -> None:
    """Serve."""
    import flbc.ledger.book  # noqa: F401
    import tests.flower.conftest
    from flbc.ledger.embedded import open_chain  # noqa: F401
    from tests.support.apps import make_app

    assert tests.flower.conftest
    for line in sys.stdin:
        point, _, home = line.rstrip("\n").partition("\t")
        if (child := os.fork()) == 0:
            run_in(home, point, make_app())
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


@contextmanager
def runner() -> Iterator[Callable[[str, Path], int]]:
    """Yield a function that runs in a home until a point, and returns how the process ended."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-W", "error", "-m", "tests.support.dying"]
    server = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    assert server.stdout is not None
    stdin, stdout = server.stdin, server.stdout

    def begin(point: str, home: Path) -> int:
        stdin.write(f"{point}\t{home}\n")
        stdin.flush()
        return int(stdout.readline())

    try:
        yield begin
    finally:
        stdin.close()
        stdout.close()
        server.wait(30)


if __name__ == "__main__":
    main()
