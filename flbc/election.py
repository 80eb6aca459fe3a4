"""Who leads a block: a lottery weighted by stake, which everybody computes alike from the chain.

Every party has one draw per block, 64 uniform bits. Party i's score is ``-ln(U) / stake`` with ``U = (draw + 1) / 2⁶⁴``
and the lowest score is first in rank. A score is an exponential variable with rate stake, so party i wins with
probability ``stake_i / Σ stake``, and those behind it are in the order of the same lottery among the rest. Splitting a
stake over several parties gains nothing. (``draw / stake`` would not do: of two parties with stakes 1 and 3 the second
would win 5/6 of the races, not 3/4.)

Scores are compared as exact fractions of integers: an auditor in another language gets the same order, to the last
bit. Where the draws come from: for block 1, where no proof could be recorded before, from the seed and the party's
address, which everybody knows; for block h + 1, from the VRF proof that the party hands in with block h
(`flbc.crypto.vrf`) on ``alpha(seed, h + 1)``. The owner of a low draw can withhold it, but not choose it; a leader can
leave a submission out, and its draw with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from fractions import Fraction

from .crypto._checks import check_bytes, check_int
from .crypto.signing import ADDRESS_BYTES, keccak256

DRAW_BITS = 64
#: Bits after the binary point of `neg_log`.
LOG_BITS = 56
_LOG_DIGITS = 60


@dataclass(frozen=True)
class Candidate:
    """A party that may lead.

    Parameters
    ----------
    index : int
        Position in the roster.
    address : bytes
        The party's signing address, 20 bytes.
    stake : int
        In gwei, as frozen when the task started; a party without stake is never ranked.
    draw : int
        64 bits.
    """

    index: int
    address: bytes
    stake: int
    draw: int

    def __post_init__(self) -> None:
        check_int("index", self.index, 0, 2**16 - 1)
        check_bytes("address", self.address, ADDRESS_BYTES)
        check_int("stake", self.stake, 0, 2**64 - 1)
        check_int("draw", self.draw, 0, 2**DRAW_BITS - 1)

    @property
    def score(self) -> Fraction:
        """``neg_log(draw) / stake``; the lowest leads. Needs a stake."""
        return Fraction(neg_log(self.draw), self.stake)


def alpha(seed: bytes, height: int) -> bytes:
    """Return the VRF's input for a block: ``keccak256(abi.encode(seed, uint256(height)))``.

    Parameters
    ----------
    seed : bytes
        The task's seed, 32 bytes, drawn after the stakes and VRF keys were frozen.
    height : int
        Number of the block, from 1. It counts recorded blocks, because a round may be abandoned.
    """
    return keccak256(check_bytes("seed", seed, 32) + check_int("height", height, 1, 2**256 - 1).to_bytes(32, "big"))


def public_draw(seed: bytes, address: bytes) -> int:
    """Return a party's draw for block 1: 64 bits of ``keccak256(abi.encode(seed, address))``.

    Parameters
    ----------
    seed : bytes
        The task's seed, 32 bytes.
    address : bytes
        The party's signing address, 20 bytes.
    """
    padded = check_bytes("address", address, ADDRESS_BYTES).rjust(32, b"\0")
    return int.from_bytes(keccak256(check_bytes("seed", seed, 32) + padded)[: DRAW_BITS // 8], "big")


def neg_log(draw: int) -> int:
    """Return ``floor(-ln((draw + 1) / 2⁶⁴) · 2⁵⁶)``, exactly.

    A float would do on one machine; the C libraries of two disagree in the last bit, and then so do two nodes on who
    leads. `decimal` rounds ``ln`` correctly by its specification, here to 60 digits, so the digits are the same
    everywhere. They are also enough for the floor: the result has at most 19 digits before the point, which leaves an
    error below 10⁻³⁹, and of 2⁶⁴ values none is expected nearer to an integer than about 10⁻²⁰ (except 0 itself, which
    is exact).

    Parameters
    ----------
    draw : int
        64 bits.

    Returns
    -------
    int
        At least 0; falls as `draw` rises.
    """
    check_int("draw", draw, 0, 2**DRAW_BITS - 1)
    # Everything is stated and every operation is the context's: an operator would round to the caller's digits.
    context = Context(_LOG_DIGITS, ROUND_HALF_EVEN, Emin=-999, Emax=999, clamp=0, flags=[], traps=[InvalidOperation])
    logarithm = context.ln(context.divide(Decimal(draw + 1), Decimal(2**DRAW_BITS)))
    return int(context.multiply(logarithm, Decimal(-(2**LOG_BITS))))


def rank(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Order the candidates: who leads first, who next if the first stays silent, and so on.

    Parameters
    ----------
    candidates : iterable of Candidate
        In any order. Those without stake are left out.

    Returns
    -------
    list of Candidate
        Rising score; equal scores by rising address.

    Raises
    ------
    ValueError
        If two candidates have one index or one address: a party has one draw.
    """
    staked = [candidate for candidate in candidates if candidate.stake > 0]
    for name, values in (("index", {c.index for c in staked}), ("address", {c.address for c in staked})):
        if len(values) < len(staked):
            raise ValueError(f"two candidates have the same {name}: count each party once")
    return sorted(staked, key=lambda candidate: (candidate.score, candidate.address))
