from dataclasses import replace
from typing import ClassVar

import pytest

from flbc.crypto.packing import SlotLayout
from flbc.crypto.paillier_threshold import deal
from flbc.schemes import SumSpec
from flbc.schemes.base import vector_to_bytes
from flbc.schemes.functional import split_request
from flbc.schemes.ndd_fe_pad import PadCombiner, PadDecryptor, PadGenerator, PadProtector
from flbc.schemes.paillier import PaillierCombiner, PaillierOpener, PaillierProtector
from flbc.schemes.paillier_split import SplitCombiner, SplitDecryptor, SplitGenerator, SplitProtector, split_geometry
from flbc.schemes.paillier_threshold import PartialOpener, ThresholdCombiner, ThresholdOpener, split_parts
from flbc.schemes.plain import PlainCombiner, PlainOpener, PlainProtector

from .contract import MAX_ABS, PARTIES, TAIL, Halves, SchemeContract


def opening(opener):
    """Serve as the one helper that opens."""
    return lambda name, request, label, listed, draw: vector_to_bytes(opener.open(request, label, listed, draw))


def functional(generator, decryptor):
    """Serve as generator and as decryptor."""

    def serve(name, request, label, listed, draw):
        if name == "generator":
            return generator.derive(label, listed, draw)
        key, hidden = split_request(request)
        return vector_to_bytes(decryptor.open(hidden, key, label, listed))

    return serve


class TestPlain(SchemeContract):
    """The baseline hides nothing and trusts everybody; its label check catches honest mistakes only."""

    hides = False
    detects_tampering = False
    binds_survivors = False

    @pytest.fixture(scope="session")
    @classmethod
    def make(cls):
        def make(spec, parties):
            protectors = [PlainProtector(spec)] * parties
            serve = opening(PlainOpener(spec))
            return Halves(spec, protectors, PlainCombiner(spec, "opener"), serve, [bytes(32)] * parties)

        return make

    @pytest.fixture(scope="session")
    @classmethod
    def slots(cls):
        return 7


class TestPaillier(SchemeContract):
    @pytest.fixture(scope="session")
    @classmethod
    def make(cls, private, clients, authority):
        def make(spec, parties):
            keys = clients[:parties]
            return Halves(
                spec,
                [PaillierProtector(private.public, spec, authority.public, key) for key in keys],
                PaillierCombiner(private.public, spec, "authority"),
                opening(PaillierOpener(private, spec, authority)),
                [key.public for key in keys],
            )

        return make

    @pytest.fixture(scope="session")
    @classmethod
    def slots(cls, private):
        spec = SumSpec(1, MAX_ABS, PARTIES, TAIL)
        return SlotLayout.plan(private.public.bits, spec.slot_bits, PARTIES).slots


class TestPaillierSplit(SchemeContract):
    """Two helpers: the generator derives the sum of the pads, the authority decrypts."""

    @pytest.fixture(scope="session")
    @classmethod
    def make(cls, private, clients, authority, generator):
        def make(spec, parties):
            keys = clients[:parties]
            return Halves(
                spec,
                [SplitProtector(private.public, spec, authority.public, generator.public, key) for key in keys],
                SplitCombiner(private.public, spec, "authority", "generator"),
                functional(SplitGenerator(spec, generator), SplitDecryptor(private, spec, authority)),
                [key.public for key in keys],
            )

        return make

    @pytest.fixture(scope="session")
    @classmethod
    def slots(cls, private):
        return split_geometry(private.public, SumSpec(1, MAX_ABS, PARTIES, TAIL)).layout.slots


class TestPaillierThreshold(SchemeContract):
    """Two of three holders open in part, the authority combines."""

    @pytest.fixture(scope="session")
    @classmethod
    def make(cls, private, clients, authority):
        shares = dict(zip(("a", "b", "c"), deal(private, 2, 3), strict=True))
        key = shares["a"].key

        def make(spec, parties):
            def serve(name, request, label, listed, draw):
                if name in shares:
                    return PartialOpener(shares[name], spec).open(request)
                parts, hidden = split_parts(request)
                return vector_to_bytes(ThresholdOpener(key, spec, authority).open(hidden, parts, label, listed, draw))

            keys = clients[:parties]
            return Halves(
                spec,
                [PaillierProtector(private.public, spec, authority.public, key) for key in keys],
                ThresholdCombiner(key, spec, "authority", tuple(shares)),
                serve,
                [key.public for key in keys],
            )

        return make

    @pytest.fixture(scope="session")
    @classmethod
    def slots(cls, private):
        spec = SumSpec(1, MAX_ABS, PARTIES, TAIL)
        return SlotLayout.plan(private.public.bits, spec.slot_bits, PARTIES).slots


class PadContract(SchemeContract):
    detects_tampering = False  # a signed payload hash does (tests/flower/test_nddfe.py)
    multipliers: ClassVar[tuple[int, ...]]

    @pytest.fixture(scope="session")
    @classmethod
    def make(cls, clients, authority):
        def make(spec, parties):
            factors = cls.multipliers[:parties]
            spec = replace(spec, max_multiplier=max(cls.multipliers))
            keys, decryptor = clients[:parties], clients[0]  # a client like the others
            return Halves(
                spec,
                [PadProtector(spec, authority.public, decryptor.public, key) for key in keys],
                PadCombiner(spec, factors, "generator", "decryptor"),
                functional(PadGenerator(spec, authority), PadDecryptor(spec, decryptor)),
                [key.public for key in keys],
                factors,
            )

        return make

    @pytest.fixture(scope="session")
    @classmethod
    def slots(cls):
        return 7


class TestPad(PadContract):
    multipliers = (1, 1, 1, 1, 1)


class TestPadWithDataSizes(PadContract):
    multipliers = (303, 294, 46, 1, 270_000_000)  # the last one needs 64-bit words
