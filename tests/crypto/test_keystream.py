import hmac
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flbc.crypto.keystream import (
    EncryptionKey,
    Keystream,
    add_keystream,
    add_keystreams,
    keystream,
    keystream_into,
    prf_words,
)
from flbc.errors import VerificationError

KEY = bytes(range(32))
keys = st.binary(min_size=32, max_size=32)


def hkdf(ikm: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 without salt, written out as the oracle."""
    prk = hmac.digest(bytes(32), ikm, "sha256")
    block = okm = b""
    for i in range(1, -(-length // 32) + 1):
        block = hmac.digest(prk, block + info + bytes([i]), "sha256")
        okm += block
    return okm[:length]


def test_agreement_known_answer(vectors):
    rfc5869 = vectors["hkdf_sha256"]
    assert hkdf(bytes.fromhex(rfc5869["ikm"]), b"", len(rfc5869["okm"]) // 2).hex() == rfc5869["okm"]
    rfc7748 = {name: bytes.fromhex(value) for name, value in vectors["x25519"].items() if name != "source"}
    alice, bob = (EncryptionKey.from_bytes(rfc7748[f"{who}_secret"]) for who in ("alice", "bob"))
    assert (alice.public, bob.public) == (rfc7748["alice_public"], rfc7748["bob_public"])
    expected = hkdf(rfc7748["shared"], b"info" + min(alice.public, bob.public) + max(alice.public, bob.public), 32)
    assert alice.agree(bob.public, b"info") == bob.agree(alice.public, b"info") == expected


def test_agreement_depends_on_the_info_and_the_peer():
    alice, bob, carol = (EncryptionKey.generate() for _ in range(3))
    derived = {alice.agree(bob.public, b"1"), alice.agree(bob.public, b"2"), alice.agree(carol.public, b"1")}
    assert len(derived) == 3


def test_keys_reload_and_differ():
    key = EncryptionKey.generate()
    assert EncryptionKey.from_bytes(key.to_bytes()).public == key.public
    assert EncryptionKey.generate().public != key.public


@pytest.mark.parametrize(
    "point",
    [
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        2**255 - 20,
        2**255 - 19,
        2**255 - 18,
    ],
    ids=["0", "1", "order 8", "order 8 twin", "p-1", "p", "p+1"],
)
def test_low_order_peers_are_refused(point):
    # The points of order 1, 2, 4 and 8 (https://cr.yp.to/ecdh.html, "validation")
    with pytest.raises(VerificationError, match="not usable"):
        EncryptionKey.generate().agree(point.to_bytes(32, "little"), b"")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_peer_of_another_length_is_refused(length):
    with pytest.raises(VerificationError, match="32 bytes"):
        EncryptionKey.generate().agree(bytes(length), b"")


def test_keystream_known_answers(vectors):
    for vector in vectors["aes256_ctr_zero_nonce"]["vectors"]:
        expected = bytes.fromhex(vector["stream"])
        assert keystream(bytes.fromhex(vector["key"]), len(expected)) == expected


@given(keys, st.integers(0, 300_000), st.integers(0, 1000))
def test_a_shorter_stream_is_a_prefix(key, length, more):
    assert keystream(key, length + more)[:length] == keystream(key, length)
    assert len(keystream(key, length)) == length


def test_long_stream_does_not_repeat():
    # Longer than one internal block: the counter must go on.
    stream = keystream(KEY, 3 << 17)
    blocks = [stream[i : i + 16] for i in range(0, len(stream), 16)]
    assert len(set(blocks)) == len(blocks)


@pytest.mark.parametrize("dtype", ["<u4", ">u4", "<i8", ">u8", "u1"])
def test_keystream_into_is_the_same_on_every_machine(dtype):
    out = np.zeros((5, 7), dtype)
    keystream_into(KEY, out)
    expected = np.frombuffer(keystream(KEY, out.nbytes), out.dtype.newbyteorder("<"))
    assert np.array_equal(out.reshape(-1), expected)


def test_keystream_into_refuses_other_buffers():
    frozen = np.zeros(4, np.uint32)
    frozen.flags.writeable = False
    for out in (frozen, np.zeros((4, 4), np.uint32)[:, ::2], [0, 1]):
        with pytest.raises(TypeError, match="C-contiguous"):
            keystream_into(KEY, out)
    with pytest.raises(TypeError, match="integers"):
        keystream_into(KEY, np.zeros(4, np.float32))


@given(keys, st.integers(0, 200), st.integers(1, 64))
def test_words_are_the_masked_stream(key, count, bits):
    stream = keystream(key, 8 * count)
    expected = [int.from_bytes(stream[8 * i : 8 * i + 8], "little") % 2**bits for i in range(count)]
    words = prf_words(key, count, bits)
    assert words.dtype == np.uint64
    assert words.tolist() == expected


def test_words_use_all_their_bits():
    for bits in (1, 47, 64):
        words = prf_words(KEY, 4000, bits)
        means = [float(np.mean(words >> np.uint64(b) & np.uint64(1))) for b in range(bits)]
        assert all(abs(mean - 0.5) < 0.05 for mean in means)  # 6 standard deviations


def test_wrong_arguments():
    with pytest.raises(ValueError, match="key must be 32 bytes, not 16"):
        keystream(bytes(16), 1)
    with pytest.raises(TypeError, match="key must be bytes"):
        keystream("k" * 32, 1)
    with pytest.raises(ValueError, match="length"):
        keystream(KEY, -1)
    for bits in (0, 65):
        with pytest.raises(ValueError, match="bits"):
            prf_words(KEY, 1, bits)
    with pytest.raises(TypeError, match="count must be an int"):
        prf_words(KEY, True, 8)
    with pytest.raises(TypeError, match="from_bytes"):
        EncryptionKey(KEY)


@given(
    key=keys,
    start=st.lists(st.integers(0, 2**64 - 1), max_size=9),
    factor=st.integers(-(2**70), 2**70),
    dtype=st.sampled_from([np.uint8, np.uint16, np.uint32, np.uint64]),
)
def test_added_keystream_is_the_keystream_times_the_factor(key, start, factor, dtype):
    words = np.array(start, np.uint64).astype(dtype)
    bits = 8 * words.itemsize
    pad = [int(w) for w in np.frombuffer(keystream(key, words.nbytes), words.dtype.newbyteorder("<"))]
    expected = [(int(w) + factor * p) % 2**bits for w, p in zip(words, pad, strict=True)]
    add_keystream(key, words, factor)
    assert words.tolist() == expected


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_added_keystream_over_block_borders(dtype):
    words = np.zeros((1 << 17) // np.dtype(dtype).itemsize * 2 + 3, dtype)
    add_keystream(KEY, words)
    assert words.astype(words.dtype.newbyteorder("<")).tobytes() == keystream(KEY, words.nbytes)
    add_keystream(KEY, words, -1)
    assert not words.any()


@pytest.mark.parametrize(
    "words",
    [
        np.zeros(4, np.int64),
        np.zeros((2, 2), np.uint32),
        np.zeros(8, np.uint32)[::2],
        np.zeros(4, np.float32),
        [0, 0],
        np.frombuffer(bytes(8), np.uint32),
    ],
)
def test_arrays_that_no_keystream_is_added_to(words):
    with pytest.raises(TypeError, match="words must be"):
        add_keystream(KEY, words)


@given(
    used=st.lists(st.tuples(keys, st.integers(-(2**70), 2**70) | st.sampled_from([1, -1])), max_size=5),
    length=st.sampled_from([0, 1, 5, (1 << 17) - 1, (1 << 17) + 3]),
    dtype=st.sampled_from([np.uint8, np.uint32]),
)
def test_many_keystreams_are_added_as_one_after_another(used, length, dtype):
    together = np.arange(length).astype(dtype)
    one_by_one = together.copy()
    add_keystreams(iter(used), together)
    for key, factor in used:
        add_keystream(key, one_by_one, factor)
    assert np.array_equal(together, one_by_one)


def test_pads_that_cancel_leave_nothing():
    words = np.arange(70_000, dtype=np.uint32)
    add_keystreams([(KEY, 1), (KEY[::-1], -1), (KEY, -1), (KEY[::-1], 1)], words)
    assert np.array_equal(words, np.arange(70_000))


@given(st.lists(st.integers(0, 3000), max_size=8))
def test_a_keystream_is_read_piece_by_piece(sizes):
    stream, parts = Keystream(KEY), [np.empty(size, np.uint8) for size in sizes]
    for part in parts:
        stream.read_into(part)
    assert b"".join(part.tobytes() for part in parts) == keystream(KEY, sum(sizes))


def test_a_keystream_is_a_secret():
    stream = Keystream(KEY)
    assert repr(stream) == "<Keystream: secret>"
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(stream)
    with pytest.raises(ValueError, match="key must be 32 bytes"):
        Keystream(KEY[:-1])
