import pytest

from flbc.crypto.packing import SlotLayout
from flbc.schemes import SumSpec
from flbc.schemes.paillier import PaillierCombiner, PaillierOpener, PaillierProtector
from flbc.schemes.plain import PlainCombiner, PlainOpener, PlainProtector

from .contract import MAX_ABS, PARTIES, TAIL, Halves, SchemeContract


class TestPlain(SchemeContract):
    """The baseline hides nothing and trusts everybody; its label check catches honest mistakes only."""

    hides = False
    detects_tampering = False

    @pytest.fixture(scope="session")
    @classmethod
    def make(cls):
        def make(spec, parties):
            protectors = [PlainProtector(spec)] * parties
            return Halves(spec, protectors, PlainCombiner(spec, "opener"), PlainOpener(spec), [bytes(32)] * parties)

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
                PaillierOpener(private, spec, authority),
                [key.public for key in keys],
            )

        return make

    @pytest.fixture(scope="session")
    @classmethod
    def slots(cls, private):
        spec = SumSpec(1, MAX_ABS, PARTIES, TAIL)
        return SlotLayout.plan(private.public.bits, spec.slot_bits, PARTIES).slots
