"""Who is paid how much, and the Merkle tree from which everybody claims alone.

The tree is the one the hub builds: one leaf for each paid party, by rising party,
``keccak(keccak(abi.encode(uint256 party, address account, uint256 amount)))`` (hashed twice, so that no inner node can
pass for a leaf); pairs in ascending order (so that a proof needs no left or right; OpenZeppelin's ``MerkleProof``
verifies it); an odd node moves up as it is.

No web3 in this file: nodes import it, because committee members recompute the payouts before they vote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..crypto.signing import keccak256
from ..errors import ConfigError

#: A party's share is proportional to its accepted blocks, or to these times its declared examples.
RULES = ("equal", "examples")


def payouts(reward: int, rule: str, rounds: Mapping[int, int], examples: Mapping[int, int]) -> dict[int, int]:
    """Divide the reward.

    Parameters
    ----------
    reward : int
        Wei to pay out, all of it.
    rule : {"equal", "examples"}
        One share for each accepted block, or one for each declared example in it.
    rounds : mapping of int to int
        Party to the number of blocks that contain its submission.
    examples : mapping of int to int
        Party to its declared examples; used by the rule ``"examples"`` only.

    Returns
    -------
    dict of int to int
        Party to wei by rising party, without those that get nothing. The amounts add up to ``reward``: what rounding
        down leaves goes to the largest remainders, one wei each, on a tie to the lower index.

    Raises
    ------
    ConfigError
        If the rule is unknown or nobody has a share.
    """
    if rule not in RULES:
        raise ConfigError(f"The payout rule is {rule!r}: choose one of {', '.join(RULES)}")
    shares = {party: count * (examples.get(party, 0) if rule == "examples" else 1) for party, count in rounds.items()}
    total = sum(shares.values())
    if reward <= 0 or total <= 0 or min(shares.values()) < 0:
        raise ConfigError(
            f"Nothing to divide: the reward is {reward} wei and the shares by rule {rule!r} add up to {total}. "
            "With the rule 'examples' parties must register the size of their training sets"
        )
    amounts = {party: reward * share // total for party, share in shares.items()}
    left = reward - sum(amounts.values())
    # Fewer than one wei per party is left, so one more for each of the first `left` is exact.
    for party in sorted(shares, key=lambda party: (-(reward * shares[party] % total), party))[:left]:
        amounts[party] += 1
    return {party: amounts[party] for party in sorted(amounts) if amounts[party]}


def leaf(party: int, account: bytes, amount: int) -> bytes:
    """Hash one payout, 32 bytes."""
    encoded = party.to_bytes(32, "big") + account.rjust(32, b"\0") + amount.to_bytes(32, "big")
    return keccak256(keccak256(encoded))


def merkle_root(amounts: Mapping[int, int], accounts: Sequence[bytes]) -> bytes:
    """Return the root that the hub computes, 32 bytes.

    Parameters
    ----------
    amounts : mapping of int to int
        Party to wei, as :func:`payouts` returns it.
    accounts : sequence of bytes
        Account of every participant, in roster order.
    """
    return _levels(amounts, accounts)[-1][0]


def merkle_proof(amounts: Mapping[int, int], accounts: Sequence[bytes], party: int) -> list[bytes]:
    """Return the siblings on the way from the party's leaf to the root; arguments as in :func:`merkle_root`."""
    if party not in amounts:
        raise ConfigError(f"Party {party} is not paid by this task")
    index, proof = sorted(amounts).index(party), []
    for level in _levels(amounts, accounts)[:-1]:
        if index ^ 1 < len(level):
            proof.append(level[index ^ 1])
        index //= 2
    return proof


def _levels(amounts: Mapping[int, int], accounts: Sequence[bytes]) -> list[list[bytes]]:
    """Return the tree from the leaves to the root."""
    if not amounts:
        raise ConfigError("A settlement without payouts has no Merkle root: at least one party must be paid")
    levels = [[leaf(party, accounts[party], amount) for party, amount in sorted(amounts.items())]]
    while len(levels[-1]) > 1:
        level = levels[-1]
        pairs = [b"".join(sorted(level[at : at + 2])) for at in range(0, len(level), 2)]
        levels.append([keccak256(pair) if len(pair) == 64 else pair for pair in pairs])
    return levels
