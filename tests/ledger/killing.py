"""Kill writers of an embedded chain at random moments, and look at what they left.

``python -m tests.ledger.killing FILE ROUNDS [outbox]``: a process of its own, because it forks (py-evm takes a second
to load, and each victim is to live some milliseconds).
"""

import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from flbc.ledger import accounts
from flbc.ledger.chain import connect
from flbc.ledger.outbox import Outbox
from flbc.ledger.transactions import Call, sign

KEY = accounts.development_key(1)


def write(path: Path, out: int) -> None:
    """Deploy junk until killed, and tell each nonce when it is done."""
    chain = connect(f"embedded:{path}")
    while True:
        nonce = chain.nonce(KEY.address)
        chain.send_raw(sign(KEY, chain.chain_id, nonce, Call(None, bytes(500)), 200_000, chain.fees()).raw)
        os.write(out, f"{nonce}\n".encode())


def send(path: Path, out: int) -> None:
    """Do the same through an outbox: submit the next number, again if need be, and wait for it."""
    chain = connect(f"embedded:{path}")
    outbox = Outbox(chain, KEY, path.with_name("outbox.sqlite"))
    for number in range(10**6):
        outbox.submit(f"number {number}", Call(KEY.address, number.to_bytes(4, "big")), 50_000)
        if number % 3 == 2:  # three at a time
            outbox.wait(f"number {number}")
            os.write(out, f"{number}\n".encode())


def kill_a_writer(work: Callable[[Path, int], None], path: Path, seconds: float, begun: bool) -> list[int]:
    """Start a writer, kill it some time after the start, or after its first word, and return what it told."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reader)
        try:
            work(path, writer)
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as lines:
        first = lines.readline() if begun else ""
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the writer failed by itself"
        return [int(line) for line in (first + lines.read()).split("\n")[:-1]]


def main(path: Path, rounds: int) -> int:
    """Return the height that was reached."""
    dice, genesis, height = random.Random(7), None, 0
    for round_ in range(rounds):
        # The first third dies while the chain is made or opened.
        told = kill_a_writer(write, path, dice.uniform(0.0, 0.1), begun=round_ >= rounds // 3)
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


def main_outbox(path: Path, rounds: int) -> int:
    """Return how many numbers were sent; each is in the chain once, in order."""
    dice, told = random.Random(11), 0
    for round_ in range(rounds):
        told = max(told, *kill_a_writer(send, path, dice.uniform(0.0, 0.2), begun=round_ % 3 != 0), 0)
        with connect(f"embedded:{path}") as chain:
            blocks = [chain.block(number) for number in range(1, chain.height() + 1)]
            sent = [chain.w3.eth.get_transaction(block["transactions"][0])["input"] for block in blocks]
            numbers = [int.from_bytes(data, "big") for data in sent]
            assert numbers == list(range(len(numbers))), numbers
            assert len(numbers) > told or told == 0, "a told transaction is lost"
    return len(numbers)


if __name__ == "__main__":
    print((main_outbox if sys.argv[3:] == ["outbox"] else main)(Path(sys.argv[1]), int(sys.argv[2])))
