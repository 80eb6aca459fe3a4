"""What each party sees of a round, made by the product's own halves: payloads, opened sums, what colluders can join.

Client 0 is the victim, the last client colludes. Everybody knows the opened sum: the next model shows it. A new way to
open is a new class, with :meth:`Strategy.look`.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from flwr.app import Array
from numpy.typing import NDArray

from flbc.codec import Codec, Frame, Layout
from flbc.crypto import paillier
from flbc.crypto.keystream import EncryptionKey, add_keystream
from flbc.crypto.packing import SlotLayout, unpack
from flbc.crypto.shamir import combine
from flbc.node.model_plan import ModelPlan
from flbc.schemes import Contribution, IntVector, SumSpec
from flbc.schemes.masking import MaskingProtector, Modulus, pair_key, seed_key
from flbc.schemes.masking_graph import neighbours, threshold
from flbc.schemes.masking_keys import KEY, SEED, deal, open_box
from flbc.schemes.masking_opening import MaskingCombiner, give_shares
from flbc.schemes.ndd_fe_pad import PadCombiner, PadDecryptor, PadGenerator, PadProtector
from flbc.schemes.paillier import PaillierCombiner, PaillierOpener, PaillierProtector
from flbc.schemes.sharing import SEATS, SharingProtector
from flbc.schemes.sharing import open_box as open_shares
from flbc.verification.committee import Data, Outcome, Round, check_and_sum
from flbc.verification.link import queue_links
from flbc.verification.policy import SUM_FRACTION, Policy
from flbc.verification.program import compile_model
from flbc.verification.session import begin
from flbc.verification.sharing import Shared

from .rounds import LEARNING_RATE, Sight, Terms, Vector

SERVER, CLIENT, HELPER = "server", "client", "helper"
WITH_CLIENT, WITH_HELPER = "client + server", "server + helper"
PARTIES = (SERVER, CLIENT, HELPER, WITH_CLIENT, WITH_HELPER)
VICTIM = 0


class Strategy(ABC):
    """A strategy, as an attacker sees it.

    Attributes
    ----------
    name : str
    private : bool
        Whether it offers differential privacy.
    helper : str
        Whom the column "helper" is about.
    joined : str
        Who must join the server so that they read one client.
    """

    name: str
    private = True
    helper = joined = "–"

    @abstractmethod
    def look(self, terms: Terms, gradients: Sequence[Vector]) -> list[Sight]:
        """Run a round with these sums of gradients, and return what parties see."""

    @abstractmethod
    def hide(self, spec: SumSpec) -> Callable[[IntVector], bytes]:
        """Return what makes payloads of one client, under fresh keys and labels each time."""

    @abstractmethod
    def guess(self, spec: SumSpec, payload: bytes) -> IntVector:
        """Read a payload as if it hid nothing."""


def public(terms: Terms, total: IntVector, vectors: Sequence[IntVector], frame: Frame, sigma: float) -> list[Sight]:
    """Return what the opened sum says to a server, to a client, and to both."""
    everybody = tuple(range(terms.clients))
    seen = terms.gradients(total, frame)
    rest = terms.gradients(total - vectors[-1], frame)
    return [
        Sight(SERVER, seen, everybody, sigma),
        Sight(CLIENT, seen, everybody, sigma),
        Sight(WITH_CLIENT, rest, everybody[:-1], sigma),
    ]


class Kept:
    """Draws a mechanism's noise and remembers it, as the party does that adds it."""

    def __init__(self, terms: Terms) -> None:
        self._mechanism, self.drawn = terms.mechanism, np.zeros(terms.spec.length, np.int64)

    def __call__(self, count: int) -> IntVector:
        assert self._mechanism is not None
        self.drawn = self._mechanism.draw(count)
        return self.drawn


class Plain(Strategy):
    """Flower's FedAvg: every update in clear, as float32."""

    name, private = "FedAvg", False

    def look(self, terms: Terms, gradients: Sequence[Vector]) -> list[Sight]:
        """Read what lies on the wire."""
        read = []
        for gradient in gradients:
            wire = {name: Array(value.astype(np.float32)) for name, value in terms.update(gradient).items()}
            update = np.concatenate([array.numpy().reshape(-1) for array in wire.values()]).astype(np.float64)
            read.append(update * (terms.examples / -LEARNING_RATE))
        everybody = tuple(range(terms.clients))
        return [
            Sight(SERVER, read[VICTIM], (VICTIM,)),
            Sight(CLIENT, sum(read), everybody),  # type: ignore[arg-type]
            Sight(WITH_CLIENT, read[VICTIM], (VICTIM,)),
        ]

    def hide(self, spec: SumSpec) -> Callable[[IntVector], bytes]:
        """Send it as it is."""
        return lambda values: values.astype("<i8").tobytes()

    def guess(self, spec: SumSpec, payload: bytes) -> IntVector:
        """Read it as it is."""
        return np.frombuffer(payload, "<i8").astype(np.int64)


@cache
def opening_key(bits: int) -> paillier.PrivateKey:
    """Make the authority's key once."""
    return paillier.generate(bits)


class PaillierStrategy(Strategy):
    """One authority decrypts.

    Parameters
    ----------
    bits : int (default: 3072)
        Of the modulus.
    """

    name, helper, joined = "Paillier", "authority", "authority"

    def __init__(self, bits: int = 3072) -> None:
        self.key, self.authority = opening_key(bits), EncryptionKey.generate()

    def look(self, terms: Terms, gradients: Sequence[Vector]) -> list[Sight]:
        """Encrypt, add, open; the authority gets the sum alone, and its noise; with the server it opens anything."""
        spec, frame, label = terms.spec, terms.frame(gradients), secrets.token_bytes(32)
        vectors = terms.encode(gradients, frame)
        keys = [EncryptionKey.generate() for _ in vectors]
        nonces = [secrets.token_bytes(32) for _ in vectors]
        payloads = {
            i: PaillierProtector(self.key.public, spec, self.authority.public, keys[i]).protect(v, label, nonces[i])
            for i, v in enumerate(vectors)
        }
        hidden = PaillierCombiner(self.key.public, spec, "authority").combine(payloads)
        survivors = [Contribution(i, key.public, nonces[i]) for i, key in enumerate(keys)]
        noise = Kept(terms)
        opener = PaillierOpener(self.key, spec, self.authority)
        total = opener.open(hidden, label, survivors, noise if terms.opener_noise else None)
        alone = opener.open(payloads[VICTIM], label, survivors[:1], None)
        everybody = tuple(range(terms.clients))
        return [
            Sight(SERVER, terms.gradients(self.guess(spec, payloads[VICTIM]), frame)),
            *public(terms, total, vectors, frame, terms.sigma),
            Sight(HELPER, terms.gradients(total - noise.drawn, frame), everybody),
            Sight(WITH_HELPER, terms.gradients(alone, frame), (VICTIM,)),
        ]

    def hide(self, spec: SumSpec) -> Callable[[IntVector], bytes]:
        """Encrypt."""
        client = PaillierProtector(self.key.public, spec, self.authority.public, EncryptionKey.generate())
        return lambda values: client.protect(values, secrets.token_bytes(32), secrets.token_bytes(32))

    def guess(self, spec: SumSpec, payload: bytes) -> IntVector:
        """Unpack ciphertexts as if they were plaintexts."""
        layout = SlotLayout.plan(self.key.public.bits, spec.slot_bits, spec.max_parties)
        count = layout.plaintexts(spec.length)
        found = paillier.ciphertexts_from_bytes(self.key.public, payload, count)
        low = [int(c) % (1 << (layout.slots * layout.slot_bits)) for c in found]
        slots = unpack(low, layout, count * layout.slots).astype(np.int64)  # type: ignore[arg-type]
        return np.asarray(slots[: spec.length] - (1 << layout.slot_bits - 1))


class NddFeStrategy(Strategy):
    """A generator makes the key to the sum, a decryptor uses it."""

    name, helper, joined = "NddFe", "generator", "generator and decryptor"

    def look(self, terms: Terms, gradients: Sequence[Vector]) -> list[Sight]:
        """Walk a round; the generator knows its noise, the decryptor its own pads."""
        spec, frame, label = terms.spec, terms.frame(gradients), secrets.token_bytes(32)
        vectors = terms.encode(gradients, frame)
        generator_key = EncryptionKey.generate()
        keys = [EncryptionKey.generate() for _ in vectors]
        nonces = [secrets.token_bytes(32) for _ in vectors]
        decryptor_key = keys[-1]  # a client, as in the product
        payloads = {
            i: PadProtector(spec, generator_key.public, decryptor_key.public, keys[i]).protect(v, label, nonces[i])
            for i, v in enumerate(vectors)
        }
        hidden = PadCombiner(spec, [1] * terms.clients, "generator", "decryptor").combine(payloads)
        survivors = [Contribution(i, key.public, nonces[i]) for i, key in enumerate(keys)]
        generator, decryptor = PadGenerator(spec, generator_key), PadDecryptor(spec, decryptor_key)
        noise = Kept(terms)
        function_key = generator.derive(label, survivors, noise if terms.opener_noise else None)
        total = decryptor.open(hidden, function_key, label, survivors)
        own = generator.derive(label, survivors[:1], None)
        alone = decryptor.open(payloads[VICTIM], own, label, survivors[:1])
        half = self._words(spec, payloads[VICTIM]) - self._words(spec, own)  # the generator's pad is off
        everybody = tuple(range(terms.clients))
        return [
            Sight(SERVER, terms.gradients(self.guess(spec, payloads[VICTIM]), frame)),
            Sight("server + generator", terms.gradients(_signed(half), frame)),
            *public(terms, total, vectors, frame, terms.sigma),
            Sight(HELPER, terms.gradients(total - noise.drawn, frame), everybody),
            Sight("decryptor", terms.gradients(total, frame), everybody, terms.sigma),
            Sight(WITH_HELPER, terms.gradients(alone, frame), (VICTIM,)),
        ]

    def hide(self, spec: SumSpec) -> Callable[[IntVector], bytes]:
        """Add two pads."""
        keys = [EncryptionKey.generate() for _ in range(3)]
        client = PadProtector(spec, keys[0].public, keys[1].public, keys[2])
        return lambda values: client.protect(values, secrets.token_bytes(32), secrets.token_bytes(32))

    def guess(self, spec: SumSpec, payload: bytes) -> IntVector:
        """Read words as signed integers."""
        return _signed(self._words(spec, payload))

    @staticmethod
    def _words(spec: SumSpec, data: bytes) -> NDArray[np.unsignedinteger]:
        return np.frombuffer(data, f"<u{len(data) // spec.length}")


class MaskedStrategy(Strategy):
    """Pairwise masks; the server opens with its clients' shares."""

    name, joined = "Masked", "clients that hold a threshold of its shares"

    def look(self, terms: Terms, gradients: Sequence[Vector]) -> list[Sight]:
        """Walk a round; as many clients as a client's secrets need can join the server, and read one."""
        spec, frame, label = terms.spec, terms.frame(gradients), secrets.token_bytes(32)
        vectors = terms.encode(gradients, frame)
        names = [f"{i:03d}" for i in range(terms.clients)]
        graph, context = neighbours(names, label), secrets.token_bytes(32)
        needed = {name: threshold(len(graph[name]) + 1) for name in names}
        boxes = {name: EncryptionKey.generate() for name in names}
        dealt = {n: deal(context, n, {p: boxes[p].public for p in graph[n]}, needed[n]) for n in names}
        dealings = {name: dealing for name, (_, dealing) in dealt.items()}
        publics = {name: dealing.public for name, dealing in dealings.items()}
        nonces = {name: secrets.token_bytes(32) for name in names}
        by_clients = terms.mechanism is not None and terms.where == "clients"
        noises = [Kept(terms) for _ in names]
        payloads = {
            i: MaskingProtector(
                spec, name, dealt[name][0], {p: publics[p] for p in graph[name]}, noises[i] if by_clients else None
            ).protect(vectors[i], label, nonces[name])
            for i, name in enumerate(names)
        }
        central = Kept(terms)
        combiner = MaskingCombiner(spec, label, dealings, nonces, graph, central if terms.opener_noise else None)
        seeds = dict.fromkeys(names, SEED)
        total = combiner.open(
            combiner.combine(payloads),
            lambda requests: {
                n: give_shares(boxes[n], n, context, body, publics, seeds, dealt[n][0].share)
                for n, body in requests.items()
            },
        )
        assert total is not None
        # Colluders give both shares of the victim's secrets, which honest nodes never do.
        victim = names[VICTIM]
        joined = graph[victim][-needed[victim] :]
        held = {
            dealings[victim].position(p): open_box(
                boxes[p], context, publics[victim], victim, p, dealings[victim].boxes[p]
            )
            for p in joined
        }
        modulus = Modulus(spec)
        words = modulus.unpack(payloads[VICTIM], spec.length)
        if len(held) >= needed[victim]:
            seed, key = (combine({place: both[kind] for place, both in held.items()}) for kind in (SEED, KEY))
            add_keystream(seed_key(seed, label, nonces[victim]), words, -1)
            for peer in graph[victim]:
                add_keystream(
                    pair_key(EncryptionKey.from_bytes(key), publics[peer], label), words, -1 if victim < peer else 1
                )
        alone = modulus.signed(words)
        own = [vector + noise.drawn for vector, noise in zip(vectors, noises, strict=True)]
        everybody, sigma = tuple(range(terms.clients)), terms.sigma
        exact = total - central.drawn
        shares = sigma * np.sqrt(terms.clients) if by_clients else 0.0
        rest = sigma * np.sqrt(terms.clients - 1) if by_clients else 0.0
        return [
            Sight(SERVER, terms.gradients(self.guess(spec, payloads[VICTIM]), frame)),
            Sight(SERVER, terms.gradients(exact, frame), everybody, shares),
            Sight(CLIENT, terms.gradients(total, frame), everybody, shares if by_clients else sigma),
            Sight(WITH_CLIENT, terms.gradients(exact - own[-1], frame), everybody[:-1], rest),
            Sight(WITH_HELPER, terms.gradients(alone, frame), (VICTIM,), sigma if by_clients else 0.0),
        ]

    def hide(self, spec: SumSpec) -> Callable[[IntVector], bytes]:
        """Mask, with fresh secrets for each."""
        peers = {f"{i:03d}": EncryptionKey.generate().public for i in range(1, spec.max_parties)}

        def hidden(values: IntVector) -> bytes:
            made, _ = deal(bytes(32), "000", peers, threshold(len(peers) + 1))
            client = MaskingProtector(spec, "000", made, peers)
            return client.protect(values, secrets.token_bytes(32), secrets.token_bytes(32))

        return hidden

    def guess(self, spec: SumSpec, payload: bytes) -> IntVector:
        """Read residues as signed integers."""
        modulus = Modulus(spec)
        return modulus.signed(modulus.unpack(payload, spec.length))


class VerifiedStrategy(Strategy):
    """Three verifiers check models on shares, and sum those that pass."""

    name, private, helper, joined = "Verified", False, "one verifier", "two verifiers"
    #: Round 1 of an untrained model: norms alone are looked at, widely enough for honest clients.
    policy = Policy(max_drop=None, norm_factor=4.0)

    def look(self, terms: Terms, gradients: Sequence[Vector]) -> list[Sight]:
        """Walk a round with the three as threads; one verifier has two of three shares, two have all."""
        network, label = terms.network, secrets.token_bytes(32)
        arrays = {name: value.numpy() for name, value in network.start.items()}
        plan = ModelPlan(
            Layout.of(arrays, private=True), Codec(max_examples=float(terms.examples), max_metrics=1), self.policy
        )
        spec = SumSpec(plan.length, plan.max_abs, terms.clients)
        vectors = [plan.encode(terms.update(g), terms.examples, {"loss": 1.0}, plan.first_frame()).values
                   for g in gradients]  # fmt: skip
        seats = [EncryptionKey.generate() for _ in range(SEATS)]
        senders, nonces = ([secrets.token_bytes(size) for _ in vectors] for size in (20, 32))
        payloads = [
            SharingProtector(spec, senders[i], [k.public for k in seats]).protect(v, label, nonces[i])
            for i, v in enumerate(vectors)
        ]
        opened = [
            [open_shares(s, seats[s], label, senders[i], nonces[i], p, spec.length) for i, p in enumerate(payloads)]
            for s in range(SEATS)
        ]
        outcomes = self._check(terms, plan, opened)
        assert outcomes[0].verdict.accepted == (True,) * terms.clients
        parts = [outcome.part.numpy() for outcome in outcomes if outcome.part is not None]
        total = parts[0] + parts[1] + parts[2]
        floats = slice(network.size)

        def read(values: IntVector, weight: int = 1) -> Vector:
            scale = 2.0**-SUM_FRACTION / -LEARNING_RATE * terms.examples / weight
            return np.asarray(values[floats] * scale, np.float64)

        everybody = tuple(range(terms.clients))
        own, after = opened[0][VICTIM]
        third = opened[1][VICTIM][1]
        seen = read(total, terms.examples)
        return [
            Sight(SERVER, read(self.guess(spec, payloads[VICTIM]))),
            Sight("verifier", read(own + after)),
            Sight(SERVER, seen, everybody),
            Sight(CLIENT, seen, everybody),
            Sight(HELPER, seen, everybody),
            Sight(WITH_CLIENT, seen - read(vectors[-1]), everybody[:-1]),
            Sight("server + verifier", seen, everybody),
            Sight(WITH_HELPER, read(own + after + third), (VICTIM,)),
        ]

    def _check(
        self, terms: Terms, plan: ModelPlan, opened: Sequence[Sequence[tuple[IntVector, IntVector]]]
    ) -> list[Outcome]:
        """Have the three check and sum, as threads; return how each ended."""
        network = terms.network
        program = compile_model(network.module, (1, 28, 28))
        arrays = {name: value.numpy() for name, value in network.start.items()}
        low, high = (torch.from_numpy(bound) for bound in plan.bounds())
        model = torch.from_numpy(plan.model(arrays))
        weights = (terms.examples,) * terms.clients
        round_ = Round(self.policy, program, 1, model, low, high, weights, min(3, terms.clients), bytes(32))
        data = Data(torch.zeros(2, 1, 28, 28), torch.zeros(2, dtype=torch.int64))
        links = queue_links(120.0)

        def work(seat: int) -> Outcome:
            shares: list[Shared | None] = [Shared(*map(torch.from_numpy, pair)) for pair in opened[seat]]
            try:
                return check_and_sum(begin(links[seat], bytes(32)), round_, shares, data)
            finally:
                links[seat].close()

        with ThreadPoolExecutor(SEATS) as pool:
            return list(pool.map(work, range(SEATS)))

    def hide(self, spec: SumSpec) -> Callable[[IntVector], bytes]:
        """Share."""
        publics = [EncryptionKey.generate().public for _ in range(SEATS)]
        client = SharingProtector(spec, bytes(20), publics)
        return lambda values: client.protect(values, secrets.token_bytes(32), secrets.token_bytes(32))

    def guess(self, spec: SumSpec, payload: bytes) -> IntVector:
        """Read the encrypted share as signed integers."""
        return np.frombuffer(payload[-8 * spec.length - 16 : -16], "<i8").astype(np.int64)


def _signed(words: NDArray[np.unsignedinteger]) -> IntVector:
    return words.view(np.dtype(f"i{words.dtype.itemsize}")).astype(np.int64)


#: In the order of the tables.
WAYS: tuple[type[Strategy], ...] = (Plain, PaillierStrategy, NddFeStrategy, MaskedStrategy, VerifiedStrategy)


def strategies(bits: int = 3072) -> Mapping[str, Strategy]:
    """Return all, by name."""
    return {way.name: way(bits) if way is PaillierStrategy else way() for way in WAYS}
