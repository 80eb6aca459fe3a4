import json
from itertools import pairwise
from pathlib import Path

import pytest
from eth_abi import encode
from hypothesis import given
from hypothesis import strategies as st

from flbc.crypto.signing import keccak256
from flbc.errors import ConfigError
from flbc.ledger.payouts import leaf, merkle_proof, merkle_root, payouts

TREES = json.loads((Path(__file__).parents[1] / "vectors" / "ledger.json").read_text())["merkle"]["trees"]
parties = st.dictionaries(st.integers(0, 40), st.integers(0, 30), min_size=1, max_size=20)
sizes = st.dictionaries(st.integers(0, 40), st.integers(0, 2**32 - 1), max_size=40)


# ---------------------------------------------------------------------- shares
def test_equal_shares_with_the_rest_to_the_lowest_index():
    assert payouts(10, "equal", {4: 1, 2: 1, 9: 1}, {}) == {2: 4, 4: 3, 9: 3}


def test_shares_by_examples_and_rounds():
    # 2 · 300, 1 · 100, 1 · 100: remainders 0.75 of 600/800, 1/8, 1/8 of 7 wei
    assert payouts(7, "examples", {0: 2, 1: 1, 2: 1}, {0: 300, 1: 100, 2: 100}) == {0: 5, 1: 1, 2: 1}


def test_the_largest_remainder_wins_before_the_lower_index():
    assert payouts(10, "equal", {0: 5, 1: 1, 2: 3}, {}) == {0: 6, 1: 1, 2: 3}  # 5.56, 1.11, 3.33


def test_who_gets_nothing_is_not_listed():
    assert payouts(1, "equal", {0: 1, 1: 1, 2: 0}, {}) == {0: 1}


@given(st.integers(1, 2**128 - 1), st.sampled_from(["equal", "examples"]), parties, sizes)
def test_payouts_are_exact_and_fair(reward, rule, rounds, examples):
    shares = {p: n * (examples.get(p, 0) if rule == "examples" else 1) for p, n in rounds.items()}
    if not sum(shares.values()):
        with pytest.raises(ConfigError, match="Nothing to divide"):
            payouts(reward, rule, rounds, examples)
        return
    amounts = payouts(reward, rule, rounds, examples)
    total = sum(shares.values())
    assert sum(amounts.values()) == reward
    assert list(amounts) == sorted(amounts)
    assert all(amounts.values())
    for party, share in shares.items():
        exact, paid = reward * share // total, amounts.get(party, 0)
        assert paid in (exact, exact + 1)
        assert not paid or share
    ordered = sorted(shares, key=shares.__getitem__)
    assert all(amounts.get(a, 0) <= amounts.get(b, 0) + (shares[a] == shares[b]) for a, b in pairwise(ordered))


@given(st.permutations(list(range(6))))
def test_the_order_of_the_mapping_does_not_matter(order):
    assert payouts(100, "equal", {party: 1 + party % 3 for party in order}, {}) == payouts(
        100, "equal", {party: 1 + party % 3 for party in range(6)}, {}
    )


def test_an_unknown_rule_is_refused():
    with pytest.raises(ConfigError, match="equal, examples"):
        payouts(1, "shapley", {0: 1}, {})


# ---------------------------------------------------------------------- Merkle tree
@pytest.mark.parametrize("tree", TREES, ids=lambda tree: f"n={len(tree['rows'])}")
def test_openzeppelin_merkle_tree_known_answers(tree):
    accounts = [bytes.fromhex(account) for account, _ in tree["rows"]]
    amounts = {party: amount for party, (_, amount) in enumerate(tree["rows"])}
    assert merkle_root(amounts, accounts).hex() == tree["root"]
    assert [[step.hex() for step in merkle_proof(amounts, accounts, party)] for party in amounts] == tree["proofs"]


@given(st.integers(0, 2**16), st.binary(min_size=20, max_size=20), st.integers(0, 2**128 - 1))
def test_leaf_is_the_abi_encoding_hashed_twice(index, account, amount):
    encoded = encode(["uint256", "address", "uint256"], [index, "0x" + account.hex(), amount])
    assert leaf(index, account, amount) == keccak256(keccak256(encoded))


def process_proof(node: bytes, proof: list[bytes]) -> bytes:
    """OpenZeppelin's MerkleProof.processProof."""
    for sibling in proof:
        node = keccak256(min(node, sibling) + max(node, sibling))
    return node


@given(st.sets(st.integers(0, 120), min_size=1, max_size=70))
def test_every_proof_leads_to_the_root_and_to_no_other_leaf(paid):
    accounts = [bytes([i]) * 20 for i in range(121)]
    amounts = {party: party + 1 for party in paid}
    root = merkle_root(amounts, accounts)
    for party, amount in amounts.items():
        proof = merkle_proof(amounts, accounts, party)
        assert process_proof(leaf(party, accounts[party], amount), proof) == root
        assert process_proof(leaf(party, accounts[party], amount + 1), proof) != root
        assert process_proof(leaf(party + 1, accounts[party], amount), proof) != root


def test_an_odd_node_moves_up():
    accounts, amounts = [bytes([i]) * 20 for i in range(4)], {0: 1, 1: 2, 3: 3}
    a, b, c = (leaf(party, accounts[party], amount) for party, amount in amounts.items())
    inner = keccak256(min(a, b) + max(a, b))
    assert merkle_root(amounts, accounts) == keccak256(min(inner, c) + max(inner, c))
    assert merkle_proof(amounts, accounts, 3) == [inner]


def test_the_tree_does_not_depend_on_the_order_of_the_mapping():
    accounts = [bytes([i]) * 20 for i in range(2)]
    assert merkle_root({1: 5, 0: 7}, accounts) == merkle_root({0: 7, 1: 5}, accounts)


@pytest.mark.parametrize("call", [lambda: merkle_root({}, []), lambda: merkle_proof({0: 1}, [bytes(20)], 1)])
def test_there_is_no_tree_of_nothing(call):
    with pytest.raises(ConfigError):
        call()
