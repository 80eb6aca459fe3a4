"""The group modes of NDD-FE: the contract, and what each of them says of itself. Attacks: tests/attacks."""

from dataclasses import replace
from hashlib import sha256
from typing import ClassVar

import numpy as np
import pytest

from flbc.crypto import group
from flbc.crypto.dlog import MAX_LIMIT
from flbc.crypto.group import (
    INFINITY,
    ORDER,
    GroupKey,
    add,
    encode_points,
    encode_scalar,
    multiply,
    negate,
    parse_point,
    parse_points,
)
from flbc.errors import CiphertextError, CodecError, ConfigError, FlbcError, OpeningRefusedError
from flbc.schemes import SumSpec
from flbc.schemes.base import vector_to_bytes
from flbc.schemes.functional import split_request
from flbc.schemes.ndd_fe_group import GroupCombiner, GroupDecryptor, GroupGenerator, GroupProtector
from flbc.schemes.ndd_fe_paper import (
    PaperCombiner,
    PaperDecryptor,
    PaperGenerator,
    PaperProtector,
    decrypt,
    encrypt,
    key_derive,
    key_gen,
    setup,
)

from .contract import LABEL, MAX_ABS, OLD_LABEL, PARTIES, TAIL, Halves, SchemeContract, constant, nonce, pattern

POINT = 33


class ModeContract(SchemeContract):
    multipliers: ClassVar[tuple[int, ...]] = (1, 1, 1, 1, 1)

    @staticmethod
    def sides(spec, generator, decryptor, tables):
        raise NotImplementedError

    @pytest.fixture(scope="session")
    @classmethod
    def keys(cls, clients, authority):
        """The clients' keys, of whom the first also decrypts, and the generator's."""
        return [GroupKey.derive(key) for key in clients], GroupKey.derive(authority)

    @pytest.fixture(scope="session")
    @classmethod
    def made_of(cls, keys, tmp_path_factory):
        """Return a function from spec and number of parties to the halves, and the two helpers apart."""
        tables = tmp_path_factory.mktemp("tables")

        def make(spec, parties):
            factors = cls.multipliers[:parties]
            spec = replace(spec, max_multiplier=max(cls.multipliers))
            clients, generator = keys[0][:parties], keys[1]
            protector, combiner, derive, opener = cls.sides(spec, generator, keys[0][0], tables)

            def serve(name, request, label, listed, draw):
                if name == "generator":
                    return derive.derive(label, listed, draw)
                key, hidden = split_request(request)
                return vector_to_bytes(opener.open(hidden, key, label, listed))

            protectors = [protector(spec, generator.public, keys[0][0].public, key) for key in clients]
            sums = combiner(spec, factors, "generator", "decryptor")
            return Halves(spec, protectors, sums, serve, [key.public for key in clients], factors), derive, opener

        return make

    @pytest.fixture(scope="session")
    @classmethod
    def make(cls, made_of):
        return lambda spec, parties: made_of(spec, parties)[0]

    @pytest.fixture(scope="session")
    @classmethod
    def slots(cls):
        return 3

    @pytest.fixture(scope="session")
    @classmethod
    def parts(cls, made_of):
        """Halves, generator and decryptor of three coordinates."""
        return made_of(SumSpec(3, MAX_ABS, PARTIES, TAIL), PARTIES)

    @pytest.fixture(scope="session")
    @classmethod
    def summed(cls, parts):
        """Three clients, their hidden sum, the function key to it, and the sum."""
        halves, generator, _ = parts
        vectors = {party: pattern(halves.spec, party) for party in range(3)}
        listed = halves.contributions(range(3))
        hidden = halves.combiner.combine(halves.payloads(vectors))
        return listed, hidden, generator.derive(LABEL, listed, None), halves.expected(vectors)

    # ------------------------------------------------------------------ keys
    def test_the_function_key_is_one_number(self, parts, summed):
        listed, hidden, key, expected = summed
        assert len(key) == 32
        assert np.array_equal(parts[2].open(hidden, key, LABEL, listed), expected)

    @pytest.mark.parametrize("length", [0, 31, 33, 63, 64, 64 + 2 * POINT, 64 + 3 * POINT + 1])
    def test_function_key_of_another_length_is_refused(self, parts, summed, length):
        listed, hidden, key, _ = summed
        with pytest.raises(CiphertextError, match=r"bytes"):
            parts[2].open(hidden, (key * 6)[:length], LABEL, listed)

    @pytest.mark.parametrize("number", [0, ORDER, 2**256 - 1])
    def test_function_key_that_is_no_scalar_is_refused(self, parts, summed, number):
        listed, hidden, _, _ = summed
        with pytest.raises(CiphertextError, match="between 1 and the group's order"):
            parts[2].open(hidden, number.to_bytes(32, "big"), LABEL, listed)

    @pytest.mark.parametrize("change", [1, -1, ORDER // 2])
    def test_another_function_key_does_not_open(self, parts, summed, change):
        listed, hidden, key, _ = summed
        other = encode_scalar(int.from_bytes(key, "big") + change)
        with pytest.raises(OpeningRefusedError, match=r"^Coordinate 0 of the sum is out of range"):
            parts[2].open(hidden, other, LABEL, listed)

    def test_function_key_of_another_round_does_not_open(self, parts, summed):
        listed, hidden, _, _ = summed
        old = parts[1].derive(OLD_LABEL, listed, None)
        for label in (LABEL, OLD_LABEL):
            with pytest.raises(OpeningRefusedError, match="out of range"):
                parts[2].open(hidden, old, label, listed)

    def test_key_to_other_multipliers_does_not_open(self, parts, summed):
        halves, generator, decryptor = parts
        listed, hidden, _, _ = summed
        if halves.spec.max_multiplier == 1:
            pytest.skip("only 1 is allowed here")
        other = [replace(listed[0], multiplier=2), *listed[1:]]
        for claimed in (listed, other):
            with pytest.raises(OpeningRefusedError):
                decryptor.open(hidden, generator.derive(LABEL, other, None), LABEL, claimed)

    @pytest.mark.parametrize("factor", [0, -1, 304, ORDER + 1])
    def test_multiplier_out_of_range_is_refused(self, parts, summed, factor):
        _, generator, decryptor = parts
        listed, hidden, key, _ = summed
        odd = [replace(listed[0], multiplier=factor), *listed[1:]]
        with pytest.raises(OpeningRefusedError, match="multiplier is not from 1 to"):
            generator.derive(LABEL, odd, None)
        with pytest.raises(OpeningRefusedError, match="multiplier is not from 1 to"):
            decryptor.open(hidden, key, LABEL, odd)

    @pytest.mark.parametrize("encryption", [bytes(32), INFINITY, b"\2" + b"\xff" * 32])
    def test_survivor_without_a_group_key_is_refused(self, parts, summed, encryption):
        listed = [replace(summed[0][0], encryption=encryption), *summed[0][1:]]
        with pytest.raises(CiphertextError, match="the peer's group key is not 33 bytes"):
            parts[1].derive(LABEL, listed, None)

    def test_another_decryptor_or_generator_fails(self, parts, summed, keys):
        listed, hidden, key, _ = summed
        spec, stranger = parts[0].spec, GroupKey.generate()
        for generator, decryptor in ((keys[1], stranger), (stranger, keys[0][0])):
            _, _, derive, opener = self.sides(spec, generator, decryptor, None)
            with pytest.raises(OpeningRefusedError):
                opener.open(hidden, derive.derive(LABEL, listed, None) if generator is stranger else key, LABEL, listed)

    def test_one_node_cannot_be_generator_and_decryptor(self, parts):
        spec, key = parts[0].spec, GroupKey.generate()
        protector, combiner, _, _ = self.sides(spec, GroupKey.generate(), key, None)
        with pytest.raises(ConfigError, match="generator and decryptor"):
            protector(spec, key.public, key.public, GroupKey.generate())
        with pytest.raises(ConfigError, match="generator and decryptor"):
            combiner(spec, [1], "same", "same")
        with pytest.raises(ConfigError, match="generator and decryptor"):
            self.sides(spec, key, key, None)

    def test_range_too_large_for_a_logarithm_is_refused(self):
        spec = SumSpec(1, MAX_LIMIT // 3, 4)
        generator, decryptor = GroupKey.generate(), GroupKey.generate()
        with pytest.raises(CodecError, match=r"mode 'pad'"):
            self.sides(spec, generator, decryptor, None)
        protector = self.sides(SumSpec(1, 1, 1), generator, decryptor, None)[0]
        with pytest.raises(CodecError, match=r"mode 'pad'"):
            protector(spec, generator.public, decryptor.public, GroupKey.generate())

    # ------------------------------------------------------------------ points
    @pytest.mark.parametrize("index", [0, 2])
    @pytest.mark.parametrize("bad", [INFINITY, b"\2" + b"\xff" * 32, b"\4" + bytes(32)])
    def test_payload_with_a_bad_point_is_named(self, parts, bad, index):
        halves = parts[0]
        payloads = halves.payloads({party: constant(halves.spec, 1) for party in range(2)})
        payloads[1] = payloads[1][: index * POINT] + bad + payloads[1][(index + 1) * POINT :]
        with pytest.raises(CiphertextError, match=f"point {index}"):
            halves.combiner.check(payloads[1])
        with pytest.raises(CiphertextError, match=f"party 1: point {index}"):
            halves.combiner.combine(payloads)

    def test_hidden_sum_with_a_bad_point_is_refused(self, parts, summed):
        listed, hidden, key, _ = summed
        with pytest.raises(CiphertextError, match="point 1"):
            parts[2].open(hidden[:POINT] + b"\2" + b"\xff" * 32 + hidden[2 * POINT :], key, LABEL, listed)
        with pytest.raises(CiphertextError, match="bytes"):
            parts[2].open(hidden[:-1], key, LABEL, listed)

    def test_hidden_sum_may_be_infinite_and_is_refused_as_no_sum(self, parts, summed):
        # Two payloads whose points cancel give it: well-formed, but nobody's sum.
        halves, _, decryptor = parts
        payload = halves.payloads({0: constant(halves.spec, 1)})[0]
        inverse = encode_points(negate(point) for point in parse_points(payload, 3, "payload"))
        combiner = type(halves.combiner)(halves.spec, [1] * PARTIES, "generator", "decryptor")
        hidden = combiner.combine({0: payload, 1: inverse})
        assert hidden == INFINITY * 3
        listed, _, key, _ = summed
        with pytest.raises(OpeningRefusedError):
            decryptor.open(hidden, key, LABEL, listed)

    def test_known_numbers_can_be_added_on_the_way(self, parts, summed, keys):
        """Documented: points are malleable; signed payload hashes and the block are what protects them."""
        listed, hidden, key, expected = summed
        pk3 = parse_point(keys[0][0].public, "pk3")
        points = list(parse_points(hidden, 3, "hidden"))
        shifted = encode_points([points[0], add([points[1], multiply(pk3, 5)]), add([points[2], multiply(pk3, -5)])])
        assert np.array_equal(parts[2].open(shifted, key, LABEL, listed), np.add(expected, [0, 5, -5]))

    # ------------------------------------------------------------------ range
    @pytest.mark.parametrize("excess", [0, 1])
    @pytest.mark.parametrize("sign", [1, -1])
    def test_sum_is_refused_from_the_survivors_limit_on(self, parts, keys, sign, excess):
        """A poisoner's value passes as far as the sum could have come honestly, and not a step further."""
        halves, generator, decryptor = parts
        listed = halves.contributions(range(2))
        limit = sum(c.multiplier for c in listed) * MAX_ABS + TAIL
        rest = limit + excess - MAX_ABS * listed[1].multiplier
        loose = replace(halves.spec, max_abs=10**6)
        protector = self.sides(loose, keys[1], keys[0][0], None)[0]
        poisoner = protector(loose, keys[1].public, keys[0][0].public, keys[0][0])
        value, left = divmod(rest, listed[0].multiplier)
        honest = constant(halves.spec, sign * MAX_ABS)
        poison = constant(loose, 0)
        poison[1] = sign * value
        payloads = {0: poisoner.protect(poison, LABEL, nonce(0)), **halves.payloads({1: honest})}
        hidden = halves.combiner.combine(payloads)
        pk3 = parse_point(keys[0][0].public, "pk3")
        points = list(parse_points(hidden, 3, "hidden"))
        points[1] = add([point for point in (points[1], multiply(pk3, sign * left)) if point is not None])
        key = generator.derive(LABEL, listed, None)
        if excess:
            with pytest.raises(OpeningRefusedError, match=r"^Coordinate 1 of the sum is out of range.*burnt"):
                decryptor.open(encode_points(points), key, LABEL, listed)
        else:
            assert decryptor.open(encode_points(points), key, LABEL, listed)[1] == sign * limit


class GroupContract(ModeContract):
    @staticmethod
    def sides(spec, generator, decryptor, tables):
        derive = GroupGenerator(spec, generator, decryptor.public)
        return GroupProtector, GroupCombiner, derive, GroupDecryptor(spec, decryptor, generator.public, tables)

    def test_noised_key_holds_a_point_for_each_coordinate(self, parts, summed):
        listed, hidden, plain, expected = summed
        noise = np.array([TAIL, 0, -7])
        keys = [parts[1].derive(LABEL, listed, lambda count: noise[:count]) for _ in range(2)]
        assert {len(key) for key in keys} == {64 + 3 * POINT}
        for key in keys:
            assert np.array_equal(parts[2].open(hidden, key, LABEL, listed), expected + noise)
        # Number, nonce and points are fresh each time: two keys show neither their noise nor that it is the same.
        assert len({plain, keys[0][:32], keys[1][:32]}) == 3
        assert keys[0][32:64] != keys[1][32:64]
        cut = [{key[64 + i * POINT :][:POINT] for key in keys} for i in range(3)]
        assert all(len(points) == 2 for points in cut)

    def test_nothing_of_a_noised_key_opens_apart(self, parts, summed):
        """S23: neither the exact sum nor the noise, with the decryptor's secret and the key in hand."""
        _, generator, decryptor = parts
        listed, hidden, plain, _ = summed
        key = generator.derive(LABEL, listed, lambda count: np.array([3, -2, 1]))
        number, noised = key[:32], key[64:]
        with pytest.raises(OpeningRefusedError):
            decryptor.open(hidden, number, LABEL, listed)  # the sum without the points
        with pytest.raises(OpeningRefusedError):
            decryptor.open(INFINITY * 3, key, LABEL, listed)  # the points without the sum
        with pytest.raises(OpeningRefusedError):
            decryptor.open(noised, number, LABEL, listed)
        with pytest.raises(OpeningRefusedError):
            decryptor.open(hidden, plain + key[32:], LABEL, listed)

    def test_noise_of_another_key_or_nonce_does_not_open(self, parts, summed):
        listed, hidden, _, _ = summed
        one, two = (parts[1].derive(LABEL, listed, lambda count: np.zeros(count, np.int64)) for _ in range(2))
        for mixed in (one[:64] + two[64:], one[:32] + two[32:64] + one[64:], two[:32] + one[32:]):
            with pytest.raises(OpeningRefusedError):
                parts[2].open(hidden, mixed, LABEL, listed)

    def test_noise_point_that_is_none_is_named(self, parts, summed):
        listed, hidden, _, _ = summed
        key = parts[1].derive(LABEL, listed, lambda count: np.zeros(count, np.int64))
        for bad in (INFINITY, b"\2" + b"\xff" * 32):
            with pytest.raises(CiphertextError, match="function key's noise: point 2"):
                parts[2].open(hidden, key[:-POINT] + bad, LABEL, listed)

    def test_another_nonce_does_not_open(self, parts, summed):
        listed, hidden, _, _ = summed
        other = [replace(listed[0], nonce=sha256(b"other").digest()), *listed[1:]]
        with pytest.raises(OpeningRefusedError):
            parts[2].open(hidden, parts[1].derive(LABEL, other, None), LABEL, other)

    def test_moved_coordinates_are_refused(self, parts, summed):
        listed, hidden, key, _ = summed
        moved = hidden[POINT : 2 * POINT] + hidden[:POINT] + hidden[2 * POINT :]
        with pytest.raises(OpeningRefusedError):
            parts[2].open(moved, key, LABEL, listed)

    @pytest.mark.parametrize(("label", "number"), [(b"short", nonce(0)), (LABEL, b"short")])
    def test_label_and_nonce_have_their_lengths(self, parts, label, number):
        with pytest.raises(CodecError, match="32 bytes each"):
            parts[0].protectors[0].protect(constant(parts[0].spec, 1), label, number)


class PaperContract(ModeContract):
    takes_noise = False
    uses_nonce = False

    @staticmethod
    def sides(spec, generator, decryptor, tables):
        opener = PaperDecryptor(spec, decryptor, generator.public, tables)
        return PaperProtector, PaperCombiner, PaperGenerator(spec, generator), opener

    def test_noise_is_refused(self, parts, summed):
        with pytest.raises(ConfigError, match="cannot carry noise"):
            parts[1].derive(LABEL, summed[0], lambda count: np.zeros(count, np.int64))

    def test_moved_coordinates_are_not_noticed(self, parts, summed):
        """Documented: nothing binds a ciphertext to its coordinate."""
        listed, hidden, key, expected = summed
        moved = hidden[POINT : 2 * POINT] + hidden[:POINT] + hidden[2 * POINT :]
        assert np.array_equal(parts[2].open(moved, key, LABEL, listed), expected[[1, 0, 2]])

    def test_label_has_its_length(self, parts):
        with pytest.raises(FlbcError, match="32 bytes"):
            parts[0].protectors[0].protect(constant(parts[0].spec, 1), b"short", nonce(0))


DATA_SIZES = (303, 294, 46, 1, 27)


class TestGroup(GroupContract):
    pass


class TestGroupWithDataSizes(GroupContract):
    multipliers = DATA_SIZES


class TestPaper(PaperContract):
    pass


class TestPaperWithDataSizes(PaperContract):
    multipliers = DATA_SIZES


def test_the_papers_algorithms_in_its_own_words():
    pp = setup()
    generator, decryptor = key_gen(pp), key_gen(pp)
    clients = [key_gen(pp) for _ in range(3)]
    x, y = [[5, -3, 0], [1, 2, 0], [-4, 9, 0]], [3, 1, 2]
    c = [encrypt(generator.public, k, decryptor.public, LABEL, v, 9) for k, v in zip(clients, x, strict=True)]
    sk = key_derive(generator, [k.public for k in clients], LABEL, y)
    g = parse_point(pp.g, "g")
    expected = [multiply(g, sum(f * v[j] for f, v in zip(y, x, strict=True))) for j in range(3)]
    assert list(decrypt(generator.public, sk, decryptor, c, y, 3)) == expected
    assert (pp.group, pp.p) == ("secp256k1", ORDER)


@pytest.mark.parametrize("protector", [GroupProtector, PaperProtector])
def test_a_long_vector_through_tables(protector, tmp_path, monkeypatch):
    """More coordinates than one batch of logarithms, and enough for tables of multiples."""
    monkeypatch.setattr(group, "_TABLE_USES", 100)
    spec = SumSpec(200, 32767, 2, 0, 3)
    generator, decryptor, client = (GroupKey.generate() for _ in range(3))
    contract = GroupContract if protector is GroupProtector else PaperContract
    _, combiner, derive, opener = contract.sides(spec, generator, decryptor, tmp_path)
    values = pattern(spec)
    payload = protector(spec, generator.public, decryptor.public, client).protect(values, LABEL, nonce(0))
    halves = Halves(spec, [], combiner(spec, [3], "g", "d"), None, [client.public], [3])
    hidden, listed = halves.combiner.combine({0: payload}), halves.contributions([0])
    assert np.array_equal(opener.open(hidden, derive.derive(LABEL, listed, None), LABEL, listed), 3 * values)
