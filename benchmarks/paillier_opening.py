"""What it takes to open a sum of a million values under Paillier: the ways that are built in, and one that is not.

Each row is measured on a sample of ciphertexts, on as many threads as there are cores where the method uses them, and
multiplied by the number of ciphertexts that a million 16-bit values of ten clients take ("per ciphertext x count").
``wall`` is what a round waits, ``cpu`` what is paid.

Built in: the authority alone (CRT); the same with a key that has fast opening (``flbc keys new --fast-opening``:
another assumption, and other blindings are refused, which is tried here); ``opening="split"`` (the same with more slot
bits, and the generator's part); ``opening="threshold"`` (one holder's partial opening, and the authority's combination
of t).

For reference, not built in: Damgård-Jurik with s = 2 (PKC 2001, section 3), that is, plaintexts of twice the modulus in
ciphertexts of three times, opened modulo p³ and q³.

Run ``python benchmarks/paillier_opening.py`` (about 5 minutes), or with ``--quick``.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
from gmpy2 import invert, mpz, powmod, powmod_base_list
from rich import box
from rich.console import Console
from rich.table import Table

from flbc.codec import Codec
from flbc.crypto import paillier
from flbc.crypto.keystream import EncryptionKey
from flbc.crypto.packing import MIN_TAG_BITS, SlotLayout
from flbc.crypto.paillier_subgroup import order_bits
from flbc.crypto.paillier_threshold import combine, deal
from flbc.errors import CiphertextError
from flbc.schemes import Contribution, SumSpec
from flbc.schemes.paillier_split import SplitGenerator, split_geometry

CLIENTS = 10


@dataclass(frozen=True)
class Row:
    """One line; seconds for all ciphertexts."""

    name: str
    ciphertexts: int
    bytes_per_value: float
    wall: float
    cpu: float
    note: str


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def row(name: str, values: int, count: int, size: int, sample: int, work: Callable[[], Any], note: str) -> Row:
    wall, cpu, _ = timed(work)
    return Row(name, count, count * size / values, wall / sample * count, cpu / sample * count, note)


def threads(function: Callable[[list[mpz]], list[mpz]], vector: list[mpz]) -> list[mpz]:
    chunks = [vector[i : i + 8] for i in range(0, len(vector), 8)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [number for part in pool.map(function, chunks) for number in part]


# ---------------------------------------------------------------------- built in
def alone(key: paillier.PrivateKey, ciphertexts: list[mpz], values: int, spec: SumSpec) -> Row:
    layout = SlotLayout.plan(key.public.bits, spec.slot_bits, spec.max_parties)
    count, size = layout.plaintexts(values), key.public.ciphertext_bytes
    note = 'opening="authority": modulo p² and q² (CRT)'
    return row("authority", values, count, size, len(ciphertexts), lambda: key.decrypt(ciphertexts), note)


def fast(bits: int, values: int, spec: SumSpec, sample: int) -> Row:
    """Open with exponents of the subgroup's order what was blinded in it; check that nothing else is opened."""
    key = paillier.generate(bits, fast_opening=True)
    n = int(key.public.n)
    plaintexts = [secrets.randbelow(n) for _ in range(sample)]
    ciphertexts = paillier.Encryptor(key.public).encrypt(plaintexts)
    layout, size = SlotLayout.plan(bits, spec.slot_bits, spec.max_parties), key.public.ciphertext_bytes
    opened: list[mpz] = []
    made = row(
        "authority, fast opening", values, layout.plaintexts(values), size, sample,
        lambda: opened.extend(key.decrypt(ciphertexts)), f"exponents of {order_bits(bits)} bits; another assumption",
    )  # fmt: skip
    assert opened == plaintexts
    foreign = (1 + 7 * key.public.n) * powmod(secrets.randbelow(n), n, n * n) % (n * n)
    try:
        key.decrypt([foreign])
    except CiphertextError:
        return made
    raise AssertionError("a ciphertext with a textbook blinding was opened")


def split(key: paillier.PrivateKey, ciphertexts: list[mpz], values: int, spec: SumSpec) -> list[Row]:
    geometry = split_geometry(key.public, spec)
    count, size = geometry.layout.plaintexts(values), key.public.ciphertext_bytes
    opened = row(
        "split: authority", values, count, size, len(ciphertexts), lambda: key.decrypt(ciphertexts),
        f"opening=\"split\": slots of {geometry.layout.slot_bits} bits instead of {spec.slot_bits}",
    )  # fmt: skip
    generator = EncryptionKey.generate()
    survivors = [Contribution(i, EncryptionKey.generate().public, bytes([i]) * 32) for i in range(CLIENTS)]
    wall, cpu, part = timed(lambda: SplitGenerator(spec, generator).derive(bytes(32), survivors, None))
    note = f"{len(part) / values:.0f} bytes a value to the authority; without noise"
    return [opened, Row("split: generator", 0, len(part) / values, wall, cpu, note)]


def threshold(
    key: paillier.PrivateKey, ciphertexts: list[mpz], values: int, spec: SumSpec, t: int, n: int
) -> list[Row]:
    layout = SlotLayout.plan(key.public.bits, spec.slot_bits, spec.max_parties)
    count, size = layout.plaintexts(values), key.public.ciphertext_bytes
    shares = deal(key, t, n)
    sample = len(ciphertexts)
    parts: dict[int, list[mpz]] = {}

    def one() -> None:
        parts[1] = shares[0].partial(ciphertexts)

    first = row(f"threshold {t} of {n}: a holder", values, count, size, sample, one, "each holder, at the same time")
    parts |= {share.place: share.partial(ciphertexts) for share in shares[1:t]}
    opened: list[Any] = []
    joined = row(
        f"threshold {t} of {n}: authority", values, count, size, sample,
        lambda: opened.extend(combine(shares[0].key, parts)[0]), f"joins {t} answers; one thread",
    )  # fmt: skip
    assert opened == key.decrypt(ciphertexts)
    return [first, joined]


# ---------------------------------------------------------------------- for reference
def damgard_jurik(key: paillier.PrivateKey, values: int, spec: SumSpec, sample: int) -> Row:
    """Open modulo p³ and q³; plaintexts have 2·bits, ciphertexts 3·bits."""
    p, q = map(mpz, key.primes())
    n, s = p * q, 2
    big = n ** (s + 1)
    plaintexts = [mpz(secrets.randbelow(int(n**s))) for _ in range(sample)]
    ciphertexts = [powmod(1 + n, m, big) * powmod(secrets.randbelow(int(n)), n**s, big) % big for m in plaintexts]

    def half(prime: mpz, other: mpz, vector: list[mpz]) -> list[mpz]:
        modulus = prime ** (s + 1)
        powers = powmod_base_list([c % modulus for c in vector], prime - 1, modulus)
        # (1 + n)^(m(p-1)) modulo p³: read m(p-1) modulo p² off the binomial expansion, digit by digit.
        inverse = invert(prime - 1, prime**s)
        found = []
        for power in powers:
            low = (power - 1) // prime % prime * invert(other, prime) % prime
            # (1+n)^i = 1 + i·n + C(i,2)·n² modulo p³
            high = ((power - 1) // prime - low * (low - 1) // 2 * n * other) % prime**s
            found.append(high * invert(other, prime**s) % prime**s * inverse % prime**s)
        return found

    def open_all(vector: list[mpz]) -> list[mpz]:
        modulus_p, modulus_q = p**s, q**s
        lift = invert(modulus_p, modulus_q)
        pairs = zip(half(p, q, vector), half(q, p, vector), strict=True)
        return [a + (b - a) * lift % modulus_q * modulus_p for a, b in pairs]

    slots = (s * key.public.bits - 1 - MIN_TAG_BITS - (CLIENTS - 1).bit_length()) // spec.slot_bits
    count = -(-values // slots)
    opened: list[mpz] = []
    made = row(
        "Damgård-Jurik, s = 2", values, count, 3 * key.public.bits // 8, sample,
        lambda: opened.extend(threads(open_all, ciphertexts)), "reference; fewer bytes a value, the same assumption",
    )  # fmt: skip
    assert opened == plaintexts
    return made


def medians(runs: list[list[Row]]) -> list[Row]:
    """Return each row's median wall and processor time; a shared machine is now fast, now slow, for minutes."""
    return [
        replace(same[0], wall=median(r.wall for r in same), cpu=median(r.cpu for r in same))
        for same in zip(*runs, strict=True)
    ]


def table(rows: list[Row], title: str) -> Table:
    result = Table(title=title, box=box.MARKDOWN)
    for heading in ("way to open", "ciphertexts", "bytes / value", "wall s", "cpu s"):
        result.add_column(heading, justify="left" if heading == "way to open" else "right")
    result.add_column("what")
    for r in rows:
        numbers = (f"{r.ciphertexts:,}" if r.ciphertexts else "–", f"{r.bytes_per_value:.2f}")
        result.add_row(r.name, *numbers, f"{r.wall:,.2f}", f"{r.cpu:,.2f}", r.note)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--values", type=int, default=1_000_000)
    parser.add_argument("--key-bits", type=int, default=3072, choices=paillier.SECURE_KEY_BITS)
    parser.add_argument("--sample", type=int, default=128, help="ciphertexts to measure")
    parser.add_argument("--repeats", type=int, default=5, help="times that each row is measured, one after the other")
    parser.add_argument("--quick", action="store_true", help="2048 bits, 16 ciphertexts, once")
    options = parser.parse_args()
    if options.quick:
        options.key_bits, options.sample, options.repeats = 2048, 16, 1
    if min(options.values, options.sample, options.repeats) < 1:
        parser.error("--values, --sample and --repeats must be positive")
    begin = time.perf_counter()
    spec = SumSpec(options.values, Codec(bits=16).max_abs, CLIENTS)
    key = paillier.generate(options.key_bits)
    n = int(key.public.n)
    ciphertexts = paillier.Encryptor(key.public).encrypt([secrets.randbelow(n) for _ in range(options.sample)])

    def measure() -> list[Row]:
        rows = [alone(key, ciphertexts, options.values, spec)]
        rows.append(fast(options.key_bits, options.values, spec, options.sample))
        rows += split(key, ciphertexts, options.values, spec)
        for t, holders in ((2, 3), (3, 5)):
            rows += threshold(key, ciphertexts, options.values, spec, t, holders)
        rows.append(damgard_jurik(key, options.values, spec, max(options.sample // 2, 1)))
        return rows

    rows = medians([measure() for _ in range(options.repeats)])
    title = (
        f"Opening a sum of {options.values:,} values of 16 bits from {CLIENTS} clients, {options.key_bits}-bit key, "
        f"{os.cpu_count()} cores; per ciphertext (of {options.sample}) x count, medians of {options.repeats}"
    )
    console = Console(width=max(Console().width, 170))
    console.print(table(rows, title))
    console.print(f"numpy {np.__version__}; measured in {time.perf_counter() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
