"""Kill writers of an embedded chain at random moments, and look at what they left.

``python -m tests.ledger.killing FILE ROUNDS``: a process of its own, because it forks (py-evm takes a second to load,
and each victim is to live some milliseconds).
"""

import os
import random
import signal
import sqlite3
import sys
import time
from itertools import pairwise
from pathlib import Path

from flbc.ledger import accounts
from flbc.ledger.chain import connect
from flbc.ledger.transactions import Call, sign

KEY = accounts.development_key(1)


def write(path: Path, out: int) -> None:
    """Deploy junk until killed, and tell each nonce when it is done."""
    chain = connect(f"embedded:{path}")
    while True:
        nonce = chain.nonce(KEY.address)
        chain.send_raw(sign(KEY, chain.chain_id, nonce, Call(None, bytes(500)), 200_000, chain.fees()).raw)
        os.write(out, f"{nonce}\n".encode())


def kill_a_writer(path: Path, seconds: float) -> list[int]:
    """Start a writer, kill it after some time, and return what it told."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reader)
        try:
            write(path, writer)
        finally:
            os._exit(1)
    os.close(writer)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the writer failed by itself"
    with os.fdopen(reader) as lines:
        return [int(line) for line in lines.read().split("\n")[:-1]]


def main(path: Path, rounds: int) -> int:
    """Return the height that was reached."""
    dice, genesis, height = random.Random(7), None, 0
    for round_ in range(rounds):
        # The first ones die while the chain is made or opened.
        told = kill_a_writer(path, dice.uniform(0.0, 0.04 if round_ < rounds // 3 else 0.2))
        with connect(f"embedded:{path}") as chain:
            genesis = genesis or chain.genesis
            assert chain.genesis == genesis, "another genesis"
            assert chain.height() >= height, "a block is lost"
            # Each block is one transaction, so nonce and height are one number; the last may not have been told.
            assert chain.nonce(KEY.address) == chain.height()
            assert not told or chain.height() - 2 <= told[-1] < chain.height(), "a told transaction is lost"
            blocks = [chain.block(number) for number in range(height, chain.height() + 1)]
            assert all(child["parentHash"] == parent["hash"] for parent, child in pairwise(blocks))
            assert all(chain.receipt(bytes(block["transactions"][0])) for block in blocks[1:])
            height = chain.height()
        with sqlite3.connect(path) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.close()
    return height


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), int(sys.argv[2])))
