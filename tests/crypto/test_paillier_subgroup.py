"""Keys with fast opening: what they are made of, what they open, and what they refuse."""

from __future__ import annotations

import secrets
from math import gcd
from traceback import walk_tb

import pytest
from gmpy2 import invert, is_prime, mpz, powmod
from hypothesis import given
from hypothesis import strategies as st

from flbc.crypto import keystore, paillier
from flbc.crypto.keystore import PartyKeys
from flbc.crypto.paillier import Encryptor, PrivateKey, PublicKey
from flbc.crypto.paillier_subgroup import order_bits
from flbc.crypto.paillier_threshold import deal
from flbc.errors import CiphertextError, ConfigError

HEAD = len(b"flbc/paillier/secret/2\n") + 2


@pytest.fixture(scope="module")
def fast() -> PrivateKey:
    return paillier.generate(1024, fast_opening=True, insecure_key_bits_for_tests=True)


@pytest.fixture(scope="module")
def encryptor(fast: PrivateKey) -> Encryptor:
    """With its table, so that hypothesis can draw freely."""
    encryptor = Encryptor(fast.public)
    encryptor.precompute(45)
    return encryptor


def orders(key: PrivateKey) -> tuple[mpz, mpz]:
    return key._half_p.exponent, key._half_q.exponent


def read(data: bytes) -> PrivateKey:
    return PrivateKey.from_bytes(data, insecure_key_bits_for_tests=True)


def textbook(key: PrivateKey, ciphertext: mpz) -> mpz:
    """Open like Paillier 1999, section 4, whatever the blinding is."""
    p, q = key.primes()
    n, lam = key.public.n, (p - 1) * (q - 1) // 2
    return (powmod(ciphertext, lam, n * n) - 1) // n * invert(mpz(lam), n) % n


def weak_open(key: PrivateKey, ciphertext: mpz) -> mpz:
    """Open with the short exponents, and do not look at remainders."""
    p, q = map(mpz, key.primes())
    halves = []
    for prime, other, order in zip((p, q), (q, p), orders(key), strict=True):
        power = powmod(ciphertext, order, prime**2)
        halves.append((power - 1) // prime * invert(order * other, prime) % prime)
    return halves[0] + (halves[1] - halves[0]) * invert(p, q) % q * p


def foreign(key: PrivateKey, plaintext: int) -> mpz:
    """A textbook ciphertext: blinded with a random n-th power."""
    n = key.public.n
    return (1 + plaintext * n) * powmod(1 + secrets.randbelow(int(n) - 1), n, n * n) % (n * n)


def refused(key: PrivateKey, *ciphertexts: mpz) -> None:
    with pytest.raises(CiphertextError, match=r"^a ciphertext was not blinded with this key's base: it is not opened$"):
        key.decrypt(ciphertexts)


# ---------------------------------------------------------------------- what the keys are
def assert_sound(key: PrivateKey, bits: int) -> None:
    n, hs = key.public.n, key.public.hs
    primes = key.primes()
    assert key.fast_opening
    assert n == primes[0] * primes[1]
    assert n.bit_length() == bits
    assert len({*primes, *orders(key)}) == 4
    assert gcd(primes[0] - 1, primes[1] - 1) == 2
    for prime, order in zip(primes, orders(key), strict=True):
        cofactor, rest = divmod(prime - 1, 2 * order)
        assert rest == 0
        assert is_prime(prime)
        assert is_prime(order)
        assert is_prime(cofactor)
        assert prime % 4 == 3
        assert prime >> (bits // 2 - 2) == 3
        assert order.bit_length() == order_bits(bits)
        # exactly the order α modulo p², so an n-th residue: those have orders that divide p - 1
        assert powmod(hs, order, prime**2) == 1
        assert hs % prime != 1


@pytest.mark.parametrize("bits", [512, 1024])
def test_keys_of_test_sizes(bits):
    for _ in range(3):
        assert_sound(paillier.generate(bits, fast_opening=True, insecure_key_bits_for_tests=True), bits)


def test_key_of_2048_bits():
    key = paillier.generate(2048, fast_opening=True)
    assert_sound(key, 2048)
    assert key.public.exponent_bits == 256
    assert PrivateKey.from_bytes(key.to_bytes()).fast_opening
    plaintexts = [0, 1, key.public.n - 1]
    assert key.decrypt(Encryptor(key.public).encrypt(plaintexts)) == plaintexts


def test_orders_have_more_than_twice_the_bits_of_the_security_level():
    # NIST SP 800-57 part 1, revision 5, table 2 (and SP 800-56B, revision 2, table 4 for 4096)
    for bits, level in ((2048, 112), (3072, 128), (4096, 152)):
        assert 2 * level < order_bits(bits) <= 2 * level + 8


def test_default_is_the_other_kind(key):
    assert not key.fast_opening
    assert key.to_bytes().startswith(b"flbc/paillier/secret/1\n")


def test_public_keys_have_one_form(fast, key):
    ours, other = fast.public.to_bytes(), key.public.to_bytes()
    assert (len(ours), ours[:25]) == (len(other), other[:25])
    assert PublicKey.from_bytes(ours, insecure_key_bits_for_tests=True) == fast.public
    assert fast.public.exponent_bits == key.public.exponent_bits


# ---------------------------------------------------------------------- what they open
@given(st.data())
def test_round_trip(fast, encryptor, data):
    n = int(fast.public.n)
    plaintexts = data.draw(st.lists(st.sampled_from([0, 1, n // 2, n - 1]) | st.integers(0, n - 1), max_size=4))
    ciphertexts = encryptor.encrypt(plaintexts)
    assert fast.decrypt(ciphertexts) == plaintexts
    assert [textbook(fast, c) for c in ciphertexts] == plaintexts


@given(st.data())
def test_sums_multiples_and_rerandomised_ciphertexts_open(fast, encryptor, data):
    n = int(fast.public.n)
    a, b = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, n - 1))
    factor = data.draw(st.integers(-(2**64), 2**64))
    first, second = encryptor.encrypt([a, b])
    total = encryptor.rerandomise([first * powmod(second, factor, n * n) % (n * n)])
    assert fast.decrypt(total) == [(a + factor * b) % n]


@given(st.data())
def test_what_is_opened_is_what_textbook_paillier_opens(fast, encryptor, data):
    """Property: any product of units is refused, or opened to the very plaintext; the two agree on which."""
    n = fast.public.n
    product = data.draw(st.sampled_from([mpz(1), mpz(-1), *encryptor.encrypt([5, 7]), mpz(2), mpz(n - 2)]))
    for factor in data.draw(st.lists(st.sampled_from([mpz(-1), mpz(2), 1 + n, *encryptor.encrypt([3])]), max_size=3)):
        product = product * factor % (n * n)
    product %= n * n
    alpha, beta = orders(fast)
    if powmod(product, alpha * beta, n) == 1:
        assert fast.decrypt([product]) == [textbook(fast, product)]
    else:
        refused(fast, product)


# ---------------------------------------------------------------------- what they refuse
def test_a_textbook_ciphertext_is_refused_and_weakly_opened_it_is_garbage(fast):
    ciphertext = foreign(fast, 42)
    assert textbook(fast, ciphertext) == 42
    assert weak_open(fast, ciphertext) != 42
    refused(fast, ciphertext)


def test_one_foreign_ciphertext_among_many_refuses_all(fast, encryptor):
    ciphertexts = encryptor.encrypt([1] * 100)
    for place in (0, 40, 99):
        refused(fast, *ciphertexts[:place], foreign(fast, 1), *ciphertexts[place + 1 :])
    assert fast.decrypt(ciphertexts) == [1] * 100


def test_a_foreign_summand_spoils_the_sum(fast, encryptor):
    (ours,) = encryptor.encrypt([1])
    refused(fast, ours * foreign(fast, 0) % fast.public.n**2)


def test_the_negative_is_refused(fast, key, encryptor):
    """Everybody knows the element -1, of order 2. Keys of the other kind open it: it is an n-th residue."""
    (ciphertext,) = encryptor.encrypt([9])
    refused(fast, -ciphertext % fast.public.n**2)
    (other,) = Encryptor(key.public).encrypt([9])
    assert key.decrypt([-other % key.public.n**2]) == [9]


def test_roots_of_unity_modulo_one_prime_are_refused(fast, encryptor):
    """Even who knew the primes would not get past with -1 modulo one of them, or an element of the order u."""
    p, q = map(mpz, fast.primes())
    n, (alpha, _) = fast.public.n, orders(fast)
    (ciphertext,) = encryptor.encrypt([9])
    cofactor = (p - 1) // (2 * alpha)
    root = next(r for r in (powmod(x, 2 * alpha * p, p * p) for x in range(2, 99)) if r != 1)
    assert powmod(root, cofactor, p * p) == 1
    for half in (p * p - 1, root):
        # `half` modulo p², 1 modulo q²
        trick = (1 + (half - 1) * invert(q * q, p * p) % (p * p) * q * q) % (n * n)
        assert trick % (q * q) == 1
        refused(fast, ciphertext * trick % (n * n))


def test_a_refusal_does_not_depend_on_plaintexts(fast, encryptor):
    """The factor (1 + mn) is 1 modulo n: no plaintext turns a refused ciphertext into an opened one, or back."""
    n = fast.public.n
    good, bad = encryptor.encrypt([0])[0], foreign(fast, 0)
    for m in (1, n // 3, n - 1):
        shift = (1 + m * n) % (n * n)
        assert fast.decrypt([good * shift % (n * n)]) == [m]
        refused(fast, bad * shift % (n * n))


def test_blindings_from_elsewhere_lie_in_the_group_and_are_refused_at_the_opening(fast):
    encryptor = Encryptor(fast.public)
    encryptor.refill([foreign(fast, 0)])
    refused(fast, *encryptor.encrypt([1]))


def test_numbers_outside_the_group_are_refused_as_ever(fast):
    for bad in (0, -1, fast.public.n**2, fast.public.n, fast.primes()[0]):
        with pytest.raises(CiphertextError, match=r"is not in|not coprime"):
            fast.decrypt([bad])


def test_it_is_not_shared(fast):
    with pytest.raises(ConfigError, match="fast opening is not shared: deal generate"):
        deal(fast, 2, 3)


# ---------------------------------------------------------------------- bytes
def test_bytes_round_trip(fast, encryptor):
    again = read(fast.to_bytes())
    assert again.fast_opening
    assert again.primes() == fast.primes()
    assert orders(again) == orders(fast)
    assert again.public == fast.public
    assert again.decrypt(encryptor.encrypt([77])) == [77]
    with pytest.raises(CiphertextError, match="not 1024"):
        PrivateKey.from_bytes(fast.to_bytes())


def private_bytes(p: int, q: int, hs: int, alpha: int, beta: int) -> bytes:
    """A key as whoever has the password would write it."""
    head = b"flbc/paillier/secret/2\n" + (1024).to_bytes(2, "big")
    numbers = ((p, 64), (q, 64), (hs, 256), (alpha, 16), (beta, 16))
    return head + b"".join(int(number).to_bytes(size, "big") for number, size in numbers)


def test_unsound_subgroups_are_refused(fast):
    (p, q), (alpha, beta), hs, n = fast.primes(), orders(fast), fast.public.hs, fast.public.n
    assert private_bytes(p, q, hs, alpha, beta) == fast.to_bytes()
    assert read(private_bytes(q, p, hs, beta, alpha)).public == fast.public
    modulo_p = powmod(hs, beta, n * n)  # order α: 1 modulo q², which factors n
    larger = powmod(2, n, n * n)  # an n-th residue of another order
    for wrong in (
        private_bytes(p, q, hs, beta, alpha),
        private_bytes(p, q, hs, alpha, alpha),
        private_bytes(p, q, hs, alpha + 2, beta),
        private_bytes(p, q, hs, alpha, 0),
        private_bytes(p, q, hs, 0, 0),
        private_bytes(p, q, hs, 1, 1),
        private_bytes(p, q, hs, 2, 2),
        private_bytes(p, q, hs, alpha, 2**128 - 1),
        private_bytes(p, q, larger, alpha, beta),
        private_bytes(p, q, n * n - hs, alpha, beta),
    ):
        with pytest.raises(CiphertextError, match="subgroup of this private key is not sound"):
            read(wrong)
    with pytest.raises(CiphertextError, match="blinding base has no order above 2"):
        read(private_bytes(p, q, modulo_p, alpha, beta))


def test_primes_of_the_other_kind_have_no_such_subgroup(key, fast):
    (p, q), hs = key.primes(), key.public.hs
    with pytest.raises(CiphertextError, match="subgroup of this private key is not sound"):
        read(private_bytes(p, q, hs, *orders(fast)))


def test_other_layouts_are_refused(fast, key):
    data = fast.to_bytes()
    body = data[HEAD:]
    for broken in (
        data[:-1],
        data + b"\0",
        data[:-32],  # version 2 without its orders
        data.replace(b"secret/2", b"secret/1"),  # version 1 with them
        data.replace(b"secret/2", b"secret/3"),
        key.to_bytes().replace(b"secret/1", b"secret/2"),
        data[: HEAD - 2] + (512).to_bytes(2, "big") + body,
    ):
        with pytest.raises(CiphertextError, match="no Paillier private key of version 1 or 2"):
            read(broken)


@given(st.binary(max_size=500) | st.binary(min_size=416, max_size=416))
def test_garbage_is_refused(data):
    for prefix in (b"flbc/paillier/secret/2\n", b"flbc/paillier/secret/2\n\x04\x00"):
        with pytest.raises(CiphertextError):
            read(prefix + data)


def test_version_1_of_the_same_primes_opens_everything(fast, encryptor):
    """A version 1 file with these primes is a sound key of the other kind: it opens what the fast one refuses."""
    plain = read(fast.to_bytes()[:-32].replace(b"secret/2", b"secret/1"))
    assert not plain.fast_opening
    assert plain.decrypt([*encryptor.encrypt([4]), foreign(fast, 5)]) == [4, 5]


# ---------------------------------------------------------------------- key files
def test_a_key_file_says_which_kind_it_holds(tmp_path, monkeypatch):
    kinds = []
    real = paillier.generate

    def small(bits: int, **kind: bool) -> PrivateKey:
        kinds.append((bits, kind))
        return real(2048, **kind)

    monkeypatch.setattr("flbc.crypto.paillier_keys.generate", small)
    keys = PartyKeys.generate("authority", paillier_bits=3072, fast_opening=True)
    assert kinds == [(3072, {"fast_opening": True})]
    keystore.save(tmp_path / "k", keys, "correct horse")
    loaded = keystore.load(tmp_path / "k", "correct horse")
    assert loaded.paillier is not None
    assert loaded.paillier.fast_opening
    assert keystore.read_public(tmp_path / "k")["paillier"]["fast_opening"] is True
    order = orders(loaded.paillier)[0]
    assert f"{order:x}" not in (tmp_path / "k").read_text("utf-8")


def test_the_public_part_of_other_keys_is_what_it_was(key):
    made = PartyKeys.generate("authority")
    assert made.public()["paillier"] is None
    keys = PartyKeys("authority", made.signing, made.encryption, made.vrf, key)
    assert set(keys.public()["paillier"]) == {"bits", "fingerprint", "public_key"}


def test_fast_opening_needs_a_size():
    with pytest.raises(ConfigError, match="set paillier_bits too"):
        PartyKeys.generate("hospital", fast_opening=True)


def test_a_refusal_holds_no_secret(fast, encryptor):
    """Anybody can cause one: not even a traceback with its variables shows the key, garbage or other plaintexts."""
    alpha, beta = orders(fast)
    p, q = map(mpz, fast.primes())
    bad, plaintexts = foreign(fast, 1), [secrets.randbits(900) for _ in range(40)]
    with pytest.raises(CiphertextError) as caught:
        fast.decrypt([*encryptor.encrypt(plaintexts), bad])
    assert caught.value.__context__ is None
    garbage = [powmod(bad, alpha, p * p), powmod(bad, beta, q * q), weak_open(fast, bad)]
    inner = caught.value.__traceback__.tb_next  # below this test, which knows everything
    shown = "".join(repr(frame.f_locals) for frame, _ in walk_tb(inner))
    assert str(bad) in shown
    assert not any(str(secret) in shown for secret in (p, q, alpha, beta, *garbage, *plaintexts))


def test_text_forms_hold_no_order(fast):
    for order in orders(fast):
        assert not any(form in text for form in (str(order), f"{order:x}") for text in (repr(fast), f"{fast._half_p}"))
