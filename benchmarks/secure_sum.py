"""What a secret sum costs: packed Paillier against python-paillier, TenSEAL's CKKS and BFV, and a plain numpy sum.

Every client quantises its values to 16 bits; packed rows are tagged, encrypted and written to bytes, added, and opened
once. Times are processor seconds (``time.process_time``), so a busy machine and the number of cores matter little; the
last columns show the wall seconds of encrypting and opening. Rows marked "from a sample" were measured on a few values
and multiplied.

TenSEAL sums the same integers. CKKS has NVFLARE's defaults (degree 8192, [60, 40, 40], scale 2^40) and adds up
approximately; BFV has degree 4096 and the plain modulus 1032193, which holds ten values of 16 bits. Both run on one
thread (``n_threads=1``), so that their processor and wall seconds are the same work. They have no part that could be
done ahead, and another trust model: in NVFLARE every client holds the key that opens.

Run ``python benchmarks/secure_sum.py`` (about 5 minutes), or with ``--quick`` (seconds). TenSEAL and phe come with
``pip install "flbc[bench]"``. The exit status is 1 when a budget is missed: encryption at least 1,000 times cheaper
than one phe ciphertext per value, its online part at least 5 times cheaper than CKKS, at most 5.1 bytes a value (for
the default 3072 bits, 16-bit values and 10 clients; other settings print their size without a budget).
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any, Generic, TypeVar

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

try:
    import tenseal
except ImportError:
    sys.exit('TenSEAL is missing, with which this benchmark compares: pip install "flbc[bench]"')

from flbc.crypto.keystream import prf_words
from flbc.crypto.packing import SlotLayout, attach_tags, pack, split_tags, unpack
from flbc.crypto.paillier import (
    SECURE_KEY_BITS,
    Encryptor,
    PrivateKey,
    add,
    ciphertexts_from_bytes,
    ciphertexts_to_bytes,
    fixed_base_table,
    generate,
)
from flbc.crypto.phe_interop import to_phe

VALUE_BITS = 16
MIN_SPEEDUP = 1000
MIN_ONLINE_SPEEDUP = 5
MAX_BYTES_PER_VALUE = 5.1
#: NVFLARE's defaults.
CKKS = {"poly_modulus_degree": 8192, "coeff_mod_bit_sizes": [60, 40, 40]}
CKKS_SCALE = 2.0**40
#: A prime that is 1 modulo twice the degree, so that a ciphertext holds 4096 values.
BFV = {"poly_modulus_degree": 4096, "plain_modulus": 1_032_193}


T = TypeVar("T")


@dataclass(frozen=True)
class Timed(Generic[T]):
    """A result and its processor and wall seconds."""

    cpu: float
    wall: float
    result: T


@dataclass(frozen=True)
class Row:
    """One line of the table; processor seconds for all values, and wall seconds of what is slow."""

    name: str
    encrypt: float | None
    online: float | None
    add: float
    open: float | None
    bytes_per_value: float
    note: str
    encrypt_wall: float | None = None
    open_wall: float | None = None
    error: float = 0.0


def timed(work: Callable[[], T]) -> Timed[T]:
    wall, start = time.perf_counter(), time.process_time()
    result = work()
    return Timed(time.process_time() - start, time.perf_counter() - wall, result)


def ours(key: PrivateKey, vectors: list[np.ndarray]) -> Row:
    public, count = key.public, len(vectors[0])
    layout = SlotLayout.plan(public.bits, VALUE_BITS + (len(vectors) - 1).bit_length(), len(vectors))
    rows = layout.plaintexts(count)
    offlines, onlines, tags = [], [], []
    for vector in vectors:
        tag_key = secrets.token_bytes(32)
        encryptor = Encryptor(public)
        fixed_base_table.cache_clear()  # a client is a fresh process, and makes the table
        offlines.append(timed(lambda e=encryptor: e.precompute(rows)))

        def protect(vector=vector, tag_key=tag_key, encryptor=encryptor) -> bytes:
            tagged = attach_tags(pack(vector, layout), prf_words(tag_key, rows, layout.tag_bits), layout)
            return ciphertexts_to_bytes(public, encryptor.encrypt(tagged))

        onlines.append(timed(protect))
        tags.append(prf_words(tag_key, rows, layout.tag_bits))
    received = [ciphertexts_from_bytes(public, online.result, rows) for online in onlines]
    adds = [timed(lambda: add(public, received)) for _ in range(3)]
    opening = timed(lambda: key.decrypt(adds[0].result))
    assert split_tags(opening.result, layout)[0] == np.sum(tags, axis=0).tolist()
    assert np.array_equal(unpack(opening.result, layout, count), np.sum(vectors, axis=0))
    clients = list(zip(offlines, onlines, strict=True))
    return Row(
        f"flbc, packed, {layout.slots} values in each of {rows} ciphertexts",
        median(offline.cpu + online.cpu for offline, online in clients),
        median(online.cpu for online in onlines),
        median(one.cpu for one in adds),
        opening.cpu,
        len(onlines[0].result) / count,
        "measured; sum and tags checked",
        median(offline.wall + online.wall for offline, online in clients),
        opening.wall,
    )


# ---------------------------------------------------------------------- TenSEAL
@contextmanager
def quiet() -> Iterator[None]:
    """Drop what TenSEAL's C++ prints: for every vector, what one of several ciphertexts cannot be used for."""
    sys.stdout.flush()
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)


def ckks(vectors: list[np.ndarray]) -> Row:
    context = tenseal.context(tenseal.SCHEME_TYPE.CKKS, **CKKS, n_threads=1)
    context.global_scale = CKKS_SCALE
    values = [vector.astype(np.float64) for vector in vectors]
    return lattice("TenSEAL CKKS, NVFLARE's defaults", lambda vector: tenseal.ckks_vector(context, vector), values)


def bfv(vectors: list[np.ndarray]) -> Row | None:
    """Return nothing where the sum of so many clients does not fit its plain modulus."""
    modulus = BFV["plain_modulus"]
    if len(vectors) * ((1 << VALUE_BITS) - 1) >= modulus:
        return None
    context = tenseal.context(tenseal.SCHEME_TYPE.BFV, **BFV, n_threads=1)
    values = [vector.tolist() for vector in vectors]
    row = lattice("TenSEAL BFV, degree 4096", lambda vector: tenseal.bfv_vector(context, vector), values, modulus)
    assert row.error == 0
    return row


def lattice(name: str, encrypt: Callable[[Any], Any], values: list[Any], modulus: int | None = None) -> Row:
    """Encrypt to bytes, as it would travel; read, add and open."""
    with quiet():
        clients = [timed(lambda vector=vector: encrypt(vector)) for vector in values]
    payloads = [timed(client.result.serialize) for client in clients]  # encrypting and writing bytes are the client's

    def total() -> Any:
        result = clients[0].result.copy()
        for client in clients[1:]:
            result += client.result
        return result

    adding = timed(total)
    opening = timed(adding.result.decrypt)
    opened = np.array(opening.result)
    expected = np.sum(np.array(values), axis=0)
    error = float(np.abs((opened if modulus is None else opened % modulus) - expected).max())
    encryptions = list(zip(clients, payloads, strict=True))
    cpu = median(client.cpu + payload.cpu for client, payload in encryptions)
    return Row(
        name,
        cpu,
        cpu,
        adding.cpu,
        opening.cpu,
        len(payloads[0].result) / len(values[0]),
        "measured, one thread; sum checked",
        median(client.wall + payload.wall for client, payload in encryptions),
        opening.wall,
        error,
    )


# ---------------------------------------------------------------------- phe
def phe_one_by_one(key: PrivateKey, vectors: list[np.ndarray], sample: int) -> Row:
    private = to_phe(key)
    count, public = len(vectors[0]), private.public_key
    values = [int(v) for v in vectors[0][:sample]]
    encryptions = [timed(lambda m=m: public.encrypt(m)) for m in values]
    encrypted = [one.result for one in encryptions]
    additions = [timed(lambda a=a: sum([a] * (len(vectors) - 1), a)) for a in encrypted]
    openings = [timed(lambda a=a: private.decrypt(a)) for a in encrypted]
    assert [one.result for one in openings] == values
    encrypt = median(one.cpu for one in encryptions) * count
    return Row(
        "phe, one value per ciphertext",
        encrypt,
        encrypt,
        median(one.cpu for one in additions) * count,
        median(one.cpu for one in openings) * count,
        2 * key.public.bits / 8,
        f"from a sample of {len(values)} values",
    )


def phe_packed(key: PrivateKey, vectors: list[np.ndarray], sample: int) -> Row:
    private = to_phe(key)
    public, count = private.public_key, len(vectors[0])
    layout = SlotLayout.plan(key.public.bits, VALUE_BITS + (len(vectors) - 1).bit_length(), len(vectors))
    rows = layout.plaintexts(count)
    packing = timed(lambda: [int(m) for m in pack(vectors[0], layout)])
    encryptions = [timed(lambda m=m: public.raw_encrypt(m)) for m in packing.result[:sample]]
    encrypted = [one.result for one in encryptions]
    modulus = public.nsquare
    adding = timed(lambda: [c * c % modulus for c in encrypted for _ in range(len(vectors) - 1)])
    openings = [timed(lambda c=c: private.raw_decrypt(c)) for c in encrypted]
    assert [one.result for one in openings] == packing.result[:sample]
    encrypt = packing.cpu + median(one.cpu for one in encryptions) * rows
    return Row(
        "phe.raw_encrypt on our packed slots",
        encrypt,
        encrypt,
        adding.cpu / len(encrypted) * rows,
        median(one.cpu for one in openings) * rows,
        rows * 2 * key.public.bits / 8 / count,
        f"from a sample of {len(encrypted)} ciphertexts",
    )


def numpy_sum(vectors: list[np.ndarray]) -> Row:
    floats = [v.astype(np.float32) for v in vectors]

    def total() -> None:
        out = floats[0].copy()
        for vector in floats[1:]:
            out += vector

    return Row("numpy float32 sum", None, None, median(timed(total).cpu for _ in range(9)), None, 4.0, "no secrecy")


# ---------------------------------------------------------------------- what is shown
def table(rows: list[Row], title: str) -> Table:
    result = Table(title=title, box=box.MARKDOWN)
    result.add_column("method")
    headings = ("encrypt / client", "of it online", "add all", "open", "wall: encrypt", "wall: open",
                "bytes / value", "largest error")  # fmt: skip
    for heading in headings:
        result.add_column(heading, justify="right")
    result.add_column("how")
    for row in rows:
        seconds = (row.encrypt, row.online, row.add, row.open, row.encrypt_wall, row.open_wall)
        times = ["–" if t is None else f"{t:,.3f}" for t in seconds]
        result.add_row(row.name, *times, f"{row.bytes_per_value:.2f}", f"{row.error:.2g}", row.note)
    return result


def judge(mine: Row, peer: Row, approximate: Row, console: Console) -> list[str]:
    """Print how many times cheaper or dearer than phe and CKKS we are; return the budgets that are missed."""

    def times(theirs: float | None, our: float | None) -> float:
        assert theirs is not None
        assert our is not None
        return theirs / our

    total, ahead = times(peer.encrypt, mine.encrypt), times(approximate.online, mine.online)
    console.print(
        f"Encryption: {total:,.0f} times cheaper than phe, online {times(peer.encrypt, mine.online):,.0f} times."
    )
    dearer = [
        times(our, theirs)
        for our, theirs in (
            (mine.encrypt, approximate.encrypt),
            (mine.add, approximate.add),
            (mine.open, approximate.open),
        )
    ]
    console.print(
        f"Beside CKKS: encryption online {ahead:.1f} times cheaper, "
        f"{approximate.bytes_per_value / mine.bytes_per_value:.1f} times fewer bytes. All of encryption costs "
        f"{dearer[0]:.1f} times as much, adding {dearer[1]:.1f} times, opening {dearer[2]:,.0f} times."
    )
    missed = (
        [f"encryption only {total:,.0f} times cheaper than phe, not {MIN_SPEEDUP:,}"] if total < MIN_SPEEDUP else []
    )
    if ahead < MIN_ONLINE_SPEEDUP:
        missed.append(f"encryption online only {ahead:.1f} times cheaper than CKKS, not {MIN_ONLINE_SPEEDUP}")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--values", type=int, default=1_000_000, help="values in each client's vector")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--key-bits", type=int, default=3072, choices=SECURE_KEY_BITS)
    parser.add_argument("--sample", type=int, default=20, help="phe operations to measure")
    parser.add_argument("--quick", action="store_true", help="100,000 values and 3 clients, 5 phe operations")
    options = parser.parse_args()
    if options.quick:
        options.values, options.clients, options.sample = 100_000, 3, 5
    if min(options.values, options.clients, options.sample) < 1:
        parser.error("--values, --clients and --sample must be positive")

    rng = np.random.default_rng(0)
    vectors = [rng.integers(0, 1 << VALUE_BITS, options.values, dtype=np.uint64) for _ in range(options.clients)]
    key = generate(options.key_bits)
    peer = phe_one_by_one(key, vectors, options.sample)
    packed = phe_packed(key, vectors, options.sample)
    approximate, exact = ckks(vectors), bfv(vectors)
    mine = ours(key, vectors)
    title = (
        f"Secret sum of {options.values:,} values of {VALUE_BITS} bits from {options.clients} clients, "
        f"{options.key_bits}-bit key, processor seconds"
    )
    console = Console(width=max(Console().width, 240))
    rows = [mine, approximate, exact, packed, peer, numpy_sum(vectors)]
    console.print(table([row for row in rows if row is not None], title))
    missed = judge(mine, peer, approximate, console)
    if options.key_bits >= 3072 and options.clients <= 10 and mine.bytes_per_value > MAX_BYTES_PER_VALUE:
        missed.append(f"{mine.bytes_per_value:.2f} bytes a value, more than {MAX_BYTES_PER_VALUE}")
    for line in missed:
        console.print(f"budget missed: {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
