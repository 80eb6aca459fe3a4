"""``EcVrf.sol`` in an EVM: it agrees with Python, and a prover who writes every byte cannot make it say otherwise."""

import json
import random
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest
from coincurve import PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from flbc.crypto import ecvrf, vrf
from flbc.crypto.signing import CURVE_ORDER, SigningKey, address_of, keccak256
from flbc.errors import VerificationError

abi = pytest.importorskip("eth_abi", reason="py-evm is not installed")
eth_tester = pytest.importorskip("eth_tester", reason="py-evm is not installed")

CONTRACTS = Path(__file__).parent.parent.parent / "contracts"
HARNESS = """
// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.24;
import {EcVrf} from "EcVrf.sol";
contract Harness {
    function verify(address key, bytes32 alpha, bytes calldata proof) external pure returns (bytes32) {
        return EcVrf.verify(key, alpha, proof);
    }
    function measure(address key, bytes32 alpha, bytes calldata proof) external view returns (uint256 used) {
        used = gasleft();
        EcVrf.verify(key, alpha, proof);
        used -= gasleft();
    }
}
"""

P = 2**256 - 2**32 - 977
Q = CURVE_ORDER
FIELDS = {
    name: (offset, size)
    for name, offset, size in [
        *((name, 32 * i, 32) for i, name in enumerate(("yx", "yy", "gx", "gy"))),
        ("c", 128, 16),
        *(
            (name, 144 + 32 * i, 32)
            for i, name in enumerate(("s", "ux", "uy", "hy", "shx", "shy", "cgx", "cgy", "inv"))
        ),
    ]
}
# What each check must answer for, step by step as EcVrf.BadProof documents it.
LENGTH, KEY, GAMMA, RANGE, WITNESS, H, U, SH, CG, INVERSE, CHALLENGE = range(1, 12)


# ---------------------------------------------------------------------- the contract
@pytest.fixture(scope="module")
def code():
    """Run-time bytecode of the harness, compiled as the product is."""
    if not shutil.which("node") or not (CONTRACTS / "node_modules" / "solc").is_dir():
        pytest.skip("no compiler: install node and run `npm ci` in contracts/")
    sources = {"Harness.sol": HARNESS, "EcVrf.sol": (CONTRACTS / "src" / "EcVrf.sol").read_text("utf-8")}
    request = {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in sources.items()},
        "settings": {
            "evmVersion": "paris",
            "viaIR": True,
            "optimizer": {"enabled": True, "runs": 1000},
            "outputSelection": {"*": {"*": ["evm.deployedBytecode.object"]}},
        },
    }
    run = subprocess.run(
        ["node", str(CONTRACTS / "tools" / "solc"), "--standard-json"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    answer = json.loads(run.stdout)
    assert not answer.get("errors"), answer["errors"]
    return bytes.fromhex(answer["contracts"]["Harness.sol"]["Harness"]["evm"]["deployedBytecode"]["object"])


@pytest.fixture(scope="module")
def call(code):
    """Call a function of the harness and return the raw answer of the EVM."""
    vm = eth_tester.PyEVMBackend().chain.get_vm()

    def call(name, key, alpha, packed, gas=1_000_000):
        selector = keccak256(f"{name}(address,bytes32,bytes)".encode())[:4]
        data = selector + abi.encode(["address", "bytes32", "bytes"], ["0x" + key.hex(), alpha, packed])
        caller, here = b"\xaa" * 20, b"\xbb" * 20
        return vm.execute_bytecode(caller, 0, gas, here, caller, 0, data, code)

    return call


@pytest.fixture(scope="module")
def check(call):
    """Verify: beta as bytes, or the step of BadProof as an int. Anything else the contract does is a failure."""

    def check(key, alpha, packed):
        answer = call("verify", key, alpha, packed)
        if answer.is_success:
            assert len(answer.output) == 32
            return answer.output
        selector, step = answer.output[:4], int.from_bytes(answer.output[4:], "big")
        assert selector == keccak256(b"BadProof(uint8)")[:4]
        assert len(answer.output) == 36
        assert 1 <= step <= 11
        return step

    return check


# ---------------------------------------------------------------------- proofs, honest and not
def to_int(data):
    return int.from_bytes(data, "big")


def point_of(x, y):
    return PublicKey(b"\4" + x.to_bytes(32, "big") + y.to_bytes(32, "big"))


def times(k, point):
    return point.multiply((k % Q).to_bytes(32, "big"))


def plus(*points):
    return PublicKey.combine_keys(list(points))


def minus(a, b):
    return plus(a, times(-1, b))


BASE = PublicKey.from_secret(b"\1".rjust(32, b"\0"))


class Forge:
    """A prover with a key of its own, who sets every field of the packed form as it likes."""

    def __init__(self, secret, alpha):
        self.key, self.alpha = SigningKey.from_bytes(secret.to_bytes(32, "big")), alpha
        self.x, self.y = secret, PublicKey(self.key.public)
        self.candidates = [self.candidate(i) for i in range(256)]
        self.honest = next(i for i, x in enumerate(self.candidates) if self.is_abscissa(x))

    def candidate(self, i):
        message = bytes([0xFE, 1]) + self.key.public + self.alpha + bytes([i % 256, 0])
        return to_int(ecvrf.sha256(message).digest())

    @staticmethod
    def is_abscissa(x):
        return x < P and pow(x**3 + 7, (P - 1) // 2, P) == 1

    def h(self, i=None):
        return PublicKey(b"\2" + self.candidates[self.honest if i is None else i].to_bytes(32, "big"))

    def roots(self, count):
        return [vrf._witness(self.candidates[i]) for i in range(count)]

    def challenge(self, h, gamma, u, v):
        return ecvrf._challenge(vrf._CURVE, *(point.format() for point in (self.y, h, gamma, u, v)))

    def fields(self, h, gamma, c, s):
        """All hints that are true for these numbers, which need not be a proof."""
        u, sh, cg = minus(times(s, BASE), times(c, self.y)), times(s, h), times(c, gamma)
        gap = (cg.point()[0] - sh.point()[0]) % P
        values = {"c": c, "s": s % Q, "hy": h.point()[1], "inv": pow(gap, -1, P) if gap else 0}
        for name, point in {"y": self.y, "g": gamma, "u": u, "sh": sh, "cg": cg}.items():
            values[name + "x"], values[name + "y"] = point.point()
        return values

    def proof(self, nonce, h=None, gamma=None):
        """(c, s) as an owner makes them, for any H and Gamma."""
        h = h or self.h()
        gamma = gamma or times(self.x, h)
        c = self.challenge(h, gamma, times(nonce, BASE), times(nonce, h))
        return self.fields(h, gamma, c, nonce + c * self.x)

    def encode(self, values, roots=None):
        body = b"".join(values[name].to_bytes(size, "big") for name, (_, size) in FIELDS.items())
        return body + b"".join(self.roots(self.honest) if roots is None else roots)


def forge_with(skipped, seed=1):
    """A prover for whom exactly `skipped` candidates of H are no points."""
    source = random.Random(seed)
    while True:
        prover = Forge(source.randrange(1, Q), source.randbytes(32))
        if prover.honest == skipped:
            return prover


def field(packed, name):
    offset, size = FIELDS[name]
    return to_int(packed[offset : offset + size])


def changed(packed, **values):
    packed = bytearray(packed)
    for name, value in values.items():
        offset, size = FIELDS[name]
        packed[offset : offset + size] = (value % 2 ** (8 * size)).to_bytes(size, "big")
    return bytes(packed)


@pytest.fixture(scope="module")
def prover():
    return forge_with(2)


@pytest.fixture(scope="module")
def packed(prover):
    return vrf.pack(prover.key.public, prover.alpha, vrf.prove(prover.key, prover.alpha))


# ---------------------------------------------------------------------- it agrees with Python
def test_contract_computes_pythons_beta(check):
    source = random.Random(2026)
    lengths = set()
    for _ in range(25):
        key, alpha = SigningKey.generate(), source.randbytes(32)
        pi = vrf.prove(key, alpha)
        packed = vrf.pack(key.public, alpha, pi)
        lengths.add(len(packed))
        assert check(key.address, alpha, packed) == vrf.verify(key.public, alpha, pi) == vrf.beta_of(pi)
    assert len(lengths) > 2


@pytest.mark.parametrize("skipped", [0, 1, 2, 5, 9])
def test_any_number_of_candidates_may_be_skipped(check, skipped):
    prover = forge_with(skipped)
    pi = vrf.prove(prover.key, prover.alpha)
    packed = vrf.pack(prover.key.public, prover.alpha, pi)
    assert len(packed) == 432 + 32 * skipped
    assert check(prover.key.address, prover.alpha, packed) == vrf.beta_of(pi)


def test_forge_makes_honest_proofs_too(check, prover, packed):
    nonce = ecvrf.rfc6979_nonce(Q, prover.key.to_bytes(), prover.h().format())
    assert prover.encode(prover.proof(to_int(nonce))) == packed


@given(st.data())
@settings(max_examples=60)
def test_both_sides_accept_the_same_bytes(check, prover, packed, data):
    """Random damage: the contract accepts exactly the canonical form of what Python accepts, with the same answer."""
    forged = bytearray(packed)
    for _ in range(data.draw(st.integers(0, 3))):
        start = data.draw(st.integers(0, len(forged)))
        piece = data.draw(st.binary(max_size=40))
        forged[start : start + data.draw(st.sampled_from([0, len(piece)]))] = piece
    forged = bytes(forged)
    try:
        public, pi = vrf.unpack(forged)
        expected = vrf.verify(public, prover.alpha, pi)
        fits = public == prover.key.public and vrf.pack(public, prover.alpha, pi) == forged
    except VerificationError:
        fits = False
    answer = check(prover.key.address, prover.alpha, forged)
    assert answer == expected if fits else isinstance(answer, int)


@given(st.binary(min_size=432, max_size=432), st.lists(st.binary(min_size=32, max_size=32), max_size=3))
@settings(max_examples=60)
def test_garbage_is_refused_in_order(check, prover, body, roots):
    packed = body + b"".join(roots)
    key = keccak256(packed[:64])[-20:]
    assert check(key, prover.alpha, packed) == KEY  # never a panic, never a success


# ---------------------------------------------------------------------- damaged proofs
def test_every_byte_counts(check, prover, packed):
    steps = {"y": KEY, "g": GAMMA, "c": U, "s": U, "u": U, "hy": H, "sh": SH, "cg": CG, "inv": INVERSE}
    source = random.Random(7)
    for name, (offset, size) in FIELDS.items():
        step = steps[name] if name in steps else steps[name[:-1]]
        for at in range(offset, offset + size):
            forged = bytearray(packed)
            forged[at] ^= source.randrange(1, 256)
            assert check(prover.key.address, prover.alpha, bytes(forged)) == step, (name, at)
    for at in range(432, len(packed)):
        forged = bytearray(packed)
        forged[at] ^= source.randrange(1, 256)
        assert check(prover.key.address, prover.alpha, bytes(forged)) == WITNESS


def test_proof_belongs_to_one_key_and_one_input(check, prover, packed):
    other = SigningKey.generate()
    assert check(other.address, prover.alpha, packed) == KEY
    assert check(bytes(20), prover.alpha, packed) == KEY
    answers = {check(prover.key.address, random.Random(i).randbytes(32), packed) for i in range(30)}
    assert answers <= {WITNESS, H}
    swapped = changed(packed, **dict(zip(("yx", "yy"), PublicKey(other.public).point(), strict=True)))
    assert check(other.address, prover.alpha, swapped) in (WITNESS, H)  # H depends on the key
    negated = changed(packed, yy=P - field(packed, "yy"))
    assert check(address_of(vrf.unpack(negated)[0]), prover.alpha, negated) in (WITNESS, H)


def test_other_lengths_are_refused(check, prover, packed):
    verify = partial(check, prover.key.address, prover.alpha)
    for length in (0, 1, 31, 32, 400, 431, 433, 447, 463, len(packed) - 1):
        assert verify(packed[:length]) == LENGTH
    for extra in (1, 31, 33):
        assert verify(packed + bytes(extra)) == LENGTH
    assert verify(packed[:432] + bytes(32 * 256)) == LENGTH
    assert verify(packed[:432] + bytes(32 * 255)) == WITNESS
    assert verify(packed[:-32]) == H  # a witness is missing
    assert verify(packed[:432]) == H
    assert verify(packed[:432] + packed[464:496] + packed[432:464]) == WITNESS  # exchanged


PAIRS = [("y", "g"), ("g", "u"), ("u", "sh"), ("sh", "cg"), ("g", "cg"), ("u", "cg"), ("y", "u")]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_points_in_each_others_place_are_refused(check, prover, packed, one, other):
    swap = {a + axis: field(packed, b + axis) for a, b in ((one, other), (other, one)) for axis in "xy"}
    forged = changed(packed, **swap)
    for key in (prover.key.address, keccak256(forged[:64])[-20:]):
        assert isinstance(check(key, prover.alpha, forged), int)


@pytest.mark.parametrize(
    ("name", "step"), [("yy", KEY), ("gy", CG), ("uy", U), ("hy", H), ("shy", SH), ("cgy", CG), ("inv", INVERSE)]
)
def test_negatives_are_refused(check, prover, packed, name, step):
    assert check(prover.key.address, prover.alpha, changed(packed, **{name: P - field(packed, name)})) == step


def test_consistently_negated_points_are_refused(check, prover, packed):
    """Gamma and c·Gamma negated together pass every product: only the challenge knows."""
    values = {name: P - field(packed, name) for name in ("gy", "cgy")}
    assert check(prover.key.address, prover.alpha, changed(packed, **values)) == CHALLENGE


# ---------------------------------------------------------------------- numbers and points out of range
def test_scalars_have_one_form(check, prover, packed):
    verify = partial(check, prover.key.address, prover.alpha)
    s, c = field(packed, "s"), field(packed, "c")
    for value in (0, Q, Q + 1, 2**256 - 1, P, s + Q if s + Q < 2**256 else Q):
        assert verify(changed(packed, s=value)) == RANGE
    assert verify(changed(packed, c=0)) == RANGE
    assert verify(changed(packed, c=0, s=0)) == RANGE
    for value in (Q - s, s + 1, s - 1, 1, Q - 1):
        assert verify(changed(packed, s=value)) == U
    for value in (-c, c + 1, c - 1, 1, 2**128 - 1):
        assert verify(changed(packed, c=value)) == U


def big_abscissae(count=4):
    """Points of the curve with x in [Q, P), which ecrecover would take modulo nothing: it refuses r >= Q."""
    found, x = [], Q
    while len(found) < count:
        if Forge.is_abscissa(x):
            found.append(PublicKey(b"\2" + x.to_bytes(32, "big")).point())
        x += 1
    return found


def test_points_that_ecrecover_cannot_take_are_refused(check, prover, packed):
    for x, y in big_abscissae():
        forged = changed(packed, yx=x, yy=y)
        assert check(keccak256(forged[:64])[-20:], prover.alpha, forged) == KEY
        assert check(prover.key.address, prover.alpha, changed(packed, gx=x, gy=y)) == GAMMA


@pytest.mark.parametrize("x", [0, 5, P, P - 1, P + 1, Q, 2**256 - 1])
@pytest.mark.parametrize("y", [0, 1, P, 2**256 - 1])
def test_what_is_no_point_is_refused(check, prover, packed, x, y):
    forged = changed(packed, yx=x, yy=y)
    assert check(keccak256(forged[:64])[-20:], prover.alpha, forged) == KEY
    assert check(prover.key.address, prover.alpha, changed(packed, gx=x, gy=y)) == GAMMA
    assert check(prover.key.address, prover.alpha, changed(packed, hy=y)) == H
    for name, step in (("u", U), ("sh", SH), ("cg", CG)):
        assert check(prover.key.address, prover.alpha, changed(packed, **{name + "x": x, name + "y": y})) == step


def test_coordinates_have_one_form(check, prover):
    """Small points with x + P or y + P below 2^256 are refused, although they are the same modulo P."""
    small = next(x for x in range(1, 2**32) if Forge.is_abscissa(x))
    point = PublicKey(b"\2" + small.to_bytes(32, "big"))
    values = prover.fields(prover.h(), point, 5, 6)
    assert check(prover.key.address, prover.alpha, prover.encode(values)) == CHALLENGE  # the form is fine
    shifted = prover.encode({**values, "gx": small + P})
    assert check(prover.key.address, prover.alpha, shifted) == GAMMA


def test_ecrecovers_silence_is_no_answer(check, prover):
    """With s = c·x, U is the point at infinity: ecrecover answers nothing, and no hint may pass for that."""
    h = prover.h()
    gamma = times(prover.x, h)
    values = prover.fields(h, plus(gamma, BASE), 3, 4 * prover.x)  # any hints
    for c in (1, 3, 2**128 - 1):
        for ux, uy in [(0, 0), (1, 1), BASE.point(), (P, P)]:
            forged = {**values, "c": c, "s": c * prover.x % Q, "ux": ux, "uy": uy}
            assert check(prover.key.address, prover.alpha, prover.encode(forged)) == U


def test_equal_and_opposite_points_have_no_difference(check, prover):
    """s·H = -c·Gamma with a true U: there is no inverse, and none may be made up."""
    h, c = prover.h(), 12345
    values = prover.fields(h, times(prover.x, h), c, -c * prover.x)
    assert values["shx"] == values["cgx"]
    for inverse in (0, 1, 2, P - 1, P, P + 1, 2**256 - 1):
        assert check(prover.key.address, prover.alpha, prover.encode({**values, "inv": inverse})) == INVERSE


# ---------------------------------------------------------------------- lies that fit everything else
def another(prover):
    """A Gamma that is not x·H, known as a multiple of H."""
    return 77, times(77, prover.h())


def test_owner_cannot_prove_another_gamma(check, prover):
    for gamma in (another(prover)[1], plus(times(prover.x, prover.h()), BASE), BASE, prover.y, prover.h()):
        for nonce in (1, 2, 999):
            answer = check(prover.key.address, prover.alpha, prover.encode(prover.proof(nonce, gamma=gamma)))
            assert answer in (CHALLENGE, INVERSE)


def test_a_lie_about_u_is_found(check, prover):
    """V = v·H and U' = anything fix c; s = v + c·γ makes V true for the wrong Gamma. Only U' is a lie."""
    factor, gamma = another(prover)
    h, lie, v = prover.h(), times(4242, BASE), 55
    c = prover.challenge(h, gamma, lie, times(v, h))
    values = prover.fields(h, gamma, c, v + c * factor)
    values["ux"], values["uy"] = lie.point()
    assert check(prover.key.address, prover.alpha, prover.encode(values)) == U


@pytest.mark.parametrize("part", ["sh", "cg"])
def test_a_lie_about_a_product_is_found(check, prover, part):
    """U = k·G and V' = anything fix c and s; one false summand makes the difference V'. Only that is a lie."""
    _, gamma = another(prover)
    h, wanted, k = prover.h(), times(987, BASE), 66
    c = prover.challenge(h, gamma, times(k, BASE), wanted)
    values = prover.fields(h, gamma, c, k + c * prover.x)
    sh, cg = times(values["s"], h), times(c, gamma)
    lie = plus(wanted, cg) if part == "sh" else minus(sh, wanted)
    values[part + "x"], values[part + "y"] = lie.point()
    values["inv"] = pow(values["cgx"] - values["shx"], -1, P)
    assert check(prover.key.address, prover.alpha, prover.encode(values)) == (SH if part == "sh" else CG)


def test_a_lie_about_the_inverse_is_found(check, prover):
    values = prover.proof(31337)
    for lie in (0, 1, values["inv"] + 1, P - values["inv"], 2 * values["inv"] % P):
        assert check(prover.key.address, prover.alpha, prover.encode({**values, "inv": lie})) == INVERSE


def test_a_lie_about_the_key_is_found(check, prover):
    """A proof that is right for another key, sent under this address."""
    other = Forge(4711, prover.alpha)
    packed = other.encode(other.proof(5))
    assert isinstance(check(other.key.address, prover.alpha, packed), bytes)
    assert check(prover.key.address, prover.alpha, packed) == KEY


def test_challenge_binds_the_input(check, prover):
    """The same H cannot be had for another alpha, and (c, s) of one input do not fit another."""
    other = Forge(prover.x, bytes(32))
    values = other.fields(other.h(), times(other.x, other.h()), prover.proof(5)["c"], prover.proof(5)["s"])
    assert check(other.key.address, other.alpha, other.encode(values)) == CHALLENGE


# ---------------------------------------------------------------------- choosing another H
def test_a_valid_candidate_cannot_be_skipped(check):
    """The proof for a later candidate is right in all else: it is the witness that does not exist."""
    prover = forge_with(1)
    first, later = prover.honest, [i for i, x in enumerate(prover.candidates) if Forge.is_abscissa(x)][1:4]
    x = prover.candidates[first]
    y = PublicKey(b"\2" + x.to_bytes(32, "big")).point()[1]
    tries = [0, 1, 2, y, P - y, x, P - x, pow(y, -1, P), P, P - 1, 2**256 - 1, 2**256 - 2]
    tries += [random.Random(i).randrange(0, P, 2) for i in range(20)]
    for later_one in later:
        values = prover.proof(99, h=prover.h(later_one))
        roots = prover.roots(later_one)
        for root in tries:
            roots[first] = root.to_bytes(32, "big")
            assert check(prover.key.address, prover.alpha, prover.encode(values, roots)) == WITNESS


def test_witnesses_cannot_be_padded_or_dropped(check, prover):
    """The number of witnesses says which candidate H is: more or fewer means another H."""
    values = prover.proof(99)
    for count in (0, 1, prover.honest + 1, prover.honest + 2):
        roots = (prover.roots(prover.honest) + [bytes(32)] * 2)[:count]
        answer = check(prover.key.address, prover.alpha, prover.encode(values, roots))
        assert answer == (H if count < prover.honest else WITNESS)


def test_a_candidate_that_is_no_point_cannot_be_taken(check, prover):
    """x³ + 7 is no square, but -(x³ + 7) is: its root is a point of the twist, not of the curve."""
    values = prover.proof(99)
    for count in range(prover.honest):
        x = prover.candidates[count]
        root = to_int(vrf._witness(x))
        for hy in (root, P - root, values["hy"], 0, P):
            forged = prover.encode({**values, "hy": hy}, prover.roots(count))
            assert check(prover.key.address, prover.alpha, forged) == H


def test_h_has_an_even_ordinate(check, prover):
    """-H with -Gamma is a right proof for another point, with another output: refused by the parity of hy alone."""
    opposite = times(-1, prover.h())
    values = prover.proof(99, h=opposite)
    assert values["hy"] % 2 == 1
    assert check(prover.key.address, prover.alpha, prover.encode(values)) == H


def test_the_counter_does_not_wrap(check, prover):
    """256 witnesses and the counter is at 0 again: refused by the length before anything is hashed."""
    packed = prover.encode(prover.proof(99), prover.roots(prover.honest) + [bytes(32)] * (256 - prover.honest))
    assert check(prover.key.address, prover.alpha, packed) == LENGTH


# ---------------------------------------------------------------------- forms of one proof
def test_a_proof_has_one_packed_form(check, prover, packed):
    verify = partial(check, prover.key.address, prover.alpha)
    for i in range(prover.honest):
        roots = prover.roots(prover.honest)
        roots[i] = (P - to_int(roots[i])).to_bytes(32, "big")  # the odd root, as good a witness
        assert verify(packed[:432] + b"".join(roots)) == WITNESS
    for name in FIELDS:
        value = field(packed, name)
        for modulus in (P, Q):
            if value + modulus < 2 ** (8 * FIELDS[name][1]):
                assert isinstance(verify(changed(packed, **{name: value + modulus})), int)


def test_other_proofs_have_the_same_output(check, prover, packed):
    """The owner chooses the nonce, so there are many proofs; there is one beta."""
    source = random.Random(3)
    proofs = {prover.encode(prover.proof(source.randrange(1, Q))) for _ in range(10)} | {packed}
    assert len(proofs) == 11
    assert {check(prover.key.address, prover.alpha, proof) for proof in proofs} == {vrf.beta_of(vrf.unpack(packed)[1])}


# ---------------------------------------------------------------------- gas
def test_too_little_gas_never_answers(call, prover, packed):
    """A precompile that runs out of gas must not count as one that answered."""
    expected = vrf.beta_of(vrf.unpack(packed)[1])
    enough = 0
    for gas in range(500, 25_000, 130):
        answer = call("verify", prover.key.address, prover.alpha, packed, gas)
        if answer.is_success:
            assert answer.output == expected
            enough = enough or gas
    assert 15_000 < enough < 25_000


def test_gas(call, capsys):
    """One ecrecover is 3,000 gas; three of them are most of what is left after the calldata."""
    rows = []
    for skipped in range(7):
        prover = forge_with(skipped)
        packed = vrf.pack(prover.key.public, prover.alpha, vrf.prove(prover.key, prover.alpha))
        used = to_int(call("measure", prover.key.address, prover.alpha, packed).output)
        calldata = sum(16 if byte else 4 for byte in packed)
        rows.append((skipped, used, calldata))
        assert used < 18_000 + 1_200 * skipped
    with capsys.disabled():
        print("\nEcVrf.verify, gas by skipped candidates (execution + calldata of the proof):")
        for skipped, used, calldata in rows:
            print(f"  {skipped}: {used:,} + {calldata:,} = {used + calldata:,}")
    mean = sum(used / 2 ** (skipped + 1) for skipped, used, _ in rows)
    assert mean < 20_000
    assert max(used + calldata for _, used, calldata in rows) < 45_000
