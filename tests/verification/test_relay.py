"""Relayed links: the relay sees ciphertext, and neither it nor strangers can do more than cut or delay."""

from __future__ import annotations

import asyncio
import datetime
import hmac
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from itertools import permutations
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from flbc.crypto.signing import keccak256
from flbc.errors import ConfigError, LinkError
from flbc.verification import relay as relay_module
from flbc.verification import rendezvous, tls
from flbc.verification.bits import ComparingParty
from flbc.verification.relay import RelayHub, RelayLimits
from flbc.verification.rendezvous import HELLO_BYTES, MAGIC, MET, OFFER, TAKE, relay_link, token
from flbc.verification.road import network_of
from flbc.verification.tls import SessionKey, TlsLink
from tests.support.relay import RogueHub, relay_links
from tests.support.three import together

CONTEXT = b"round 1"


@pytest.fixture
def hub() -> Iterator[RelayHub]:
    with RelayHub() as made:
        yield made


@pytest.fixture
def guests() -> Iterator[Callable[..., socket.socket]]:
    """Return a function that dials a relay."""
    with ExitStack() as stack:

        def dial(hub: RelayHub, said: bytes = b"", host: str = "127.0.0.1") -> socket.socket:
            plain = stack.enter_context(socket.create_connection(hub.address, 10, (host, 0)))
            plain.sendall(said)
            return plain

        yield dial


def close(links: list[TlsLink]) -> None:
    for link in links:
        link.close()


def all_at_once(links: list[TlsLink], work: Callable[[TlsLink], Any]) -> list[Any]:
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(work, links))


def hangs_up(plain: socket.socket, within: float) -> bool:
    """Whether the relay closes a connection in time without a word."""
    plain.settimeout(within)
    with suppress(ConnectionResetError):
        try:
            return plain.recv(1) == b""
        except TimeoutError:
            return False
    return True


def until(what: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.01)
    return what()


def round_trip(links: list[TlsLink]) -> None:
    def talk(link: TlsLink) -> None:
        others = [rank for rank in range(3) if rank != link.rank]
        for to in others:
            link.send(to, bytes([link.rank, to]))
        for sender in others:
            assert link.recv(sender) == bytes([sender, link.rank])

    all_at_once(links, talk)


# ---------------------------------------------------------------------- what it is for
def test_a_comparison_over_the_relay_gives_the_same_result(hub: RelayHub) -> None:
    values = torch.randint(-(2**60), 2**60, (10_000,), dtype=torch.int64, generator=torch.Generator().manual_seed(1))
    keys = [secrets.token_bytes(32) for _ in range(3)]

    def work(party: ComparingParty) -> torch.Tensor:
        x = party.share(0, values if party.rank == 0 else None, values.shape)
        return party.open(party.relu(x))

    links = relay_links(hub.address)
    relayed = all_at_once(links, lambda link: work(ComparingParty(link, keys[link.rank], keys[(link.rank + 1) % 3])))
    close(links)
    for over_relay, in_process in zip(relayed, together(work, ComparingParty)[0], strict=True):
        assert torch.equal(over_relay, values.clamp(min=0))
        assert torch.equal(over_relay, in_process)


def test_eight_megabytes_both_ways_at_once(hub: RelayHub) -> None:
    size = 8 * 2**20
    links = relay_links(hub.address)

    def talk(link: TlsLink) -> bool:
        others = [rank for rank in range(3) if rank != link.rank]
        for to in others:
            link.send(to, bytes([link.rank]) * size)
        return all(link.recv(sender) == bytes([sender]) * size for sender in others)

    assert all_at_once(links, talk) == [True, True, True]
    close(links)


def test_two_computations_of_one_session_do_not_meet(hub: RelayHub) -> None:
    keys = [SessionKey() for _ in range(3)]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda name: relay_links(hub.address, 10, keys, (name,) * 3), (b"round 1", b"round 2"))
    for links in (first, second):
        round_trip(links)
        close(links)


# ---------------------------------------------------------------------- tokens
def test_tokens_differ_in_everything_that_they_bind() -> None:
    keys = [SessionKey() for _ in range(4)]
    tokens = [
        token(
            keys[shown[sender]], context, {rank: keys[shown[rank]].certificate for rank in range(3)}, sender, receiver
        )
        for context in (b"round 1", b"round 2", b"")
        for shown in ((0, 1, 2), (1, 0, 2), (0, 1, 3))
        for sender, receiver in permutations(range(3), 2)
    ]
    assert len(set(tokens)) == len(tokens) == 3 * 3 * 6
    assert {len(each) for each in tokens} == {32}


def test_both_ends_compute_the_same_token() -> None:
    keys = [SessionKey() for _ in range(3)]
    certificates = {rank: key.certificate for rank, key in enumerate(keys)}
    turned = dict(reversed(certificates.items()))
    for a, b in permutations(range(3), 2):
        assert token(keys[a], CONTEXT, certificates, a, b) == token(keys[b], CONTEXT, turned, a, b)


def test_who_knows_certificates_and_context_knows_no_token() -> None:
    """A client has all of it in its ticket: neither public values nor a key of its own, in any seat, give a token."""
    keys, client = [SessionKey() for _ in range(3)], SessionKey()
    certificates = {rank: key.certificate for rank, key in enumerate(keys)}
    used = {token(keys[a], CONTEXT, certificates, a, b) for a, b in permutations(range(3), 2)}
    for a, b in permutations(range(3), 2):
        for outsider in (client, keys[3 - a - b]):
            with pytest.raises(LinkError, match="this key is of another party"):
                token(outsider, CONTEXT, certificates, a, b)
        # With the check taken away, and the same info.
        shown = b"".join(keccak256(certificates[rank]) for rank in range(3))
        info = rendezvous._DOMAIN + shown + bytes([a, b]) + keccak256(CONTEXT)
        assert keys[a].agree(certificates[b], info) in used
        for outsider in (client, keys[3 - a - b]):
            assert not {outsider.agree(certificates[rank], info) for rank in (a, b)} & used
        assert keccak256(info) not in used
        assert token(client, CONTEXT, {**certificates, a: client.certificate}, a, b) not in used


def certificate_of(key: Any) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "flbc")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def test_agreed_secrets_are_hkdf_of_the_diffie_hellman_value() -> None:
    """HKDF-SHA256 of RFC 5869, section 2, in two lines of hmac: without salt, one block."""
    key, other = SessionKey(), ec.generate_private_key(ec.SECP256R1())
    shared = other.exchange(ec.ECDH(), x509.load_der_x509_certificate(key.certificate).public_key())  # type: ignore[arg-type]
    extracted = hmac.digest(bytes(32), shared, "sha256")
    agreed = key.agree(certificate_of(other), b"info")
    assert agreed == hmac.digest(extracted, b"info" + b"\x01", "sha256")
    assert SessionKey.from_bytes(key.to_bytes()).agree(certificate_of(other), b"info") == agreed


def off_the_curve() -> bytes:
    certificate = bytearray(SessionKey().certificate)
    certificate[certificate.index(b"\x03\x42\x00\x04") + 67] ^= 1  # the last byte of y in the bit string
    return bytes(certificate)


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"",
        lambda: b"a certificate",
        lambda: SessionKey().certificate[:-1],
        lambda: SessionKey().certificate + bytes(5000),
        off_the_curve,
        lambda: certificate_of(ec.generate_private_key(ec.SECP384R1())),
        lambda: certificate_of(ec.generate_private_key(ec.SECP256K1())),
        lambda: certificate_of(rsa.generate_private_key(65537, 2048)),
    ],
    ids=["empty", "garbage", "cut", "huge", "off the curve", "P-384", "secp256k1", "RSA"],
)
def test_no_secret_is_agreed_on_with_another_certificate(make: Callable[[], bytes]) -> None:
    key, certificate = SessionKey(), make()
    with pytest.raises(LinkError, match="no key on P-256") as caught:
        key.agree(certificate, b"")
    assert caught.value.__cause__ is None
    with pytest.raises(LinkError, match="no key on P-256"):
        relay_link(0, key, ("127.0.0.1", 1), {1: SessionKey().certificate, 2: certificate}, CONTEXT, 0.1)


def test_a_stale_connection_is_never_paired(hub: RelayHub, guests: Callable[..., socket.socket]) -> None:
    """What waits for an earlier round, with the same keys, is left waiting."""
    keys = [SessionKey() for _ in range(3)]
    certificates = {rank: key.certificate for rank, key in enumerate(keys)}
    stale = [guests(hub, MAGIC + OFFER + token(keys[1], b"round 0", certificates, 1, peer)) for peer in (0, 2)]
    links = relay_links(hub.address, keys=keys)
    round_trip(links)
    for plain in stale:
        plain.settimeout(0.05)
        with pytest.raises(TimeoutError):
            plain.recv(1)
    close(links)


@pytest.mark.parametrize(
    ("ranks", "context", "error"),
    [
        ((1,), CONTEXT, LinkError),
        ((0, 1), CONTEXT, LinkError),
        ((1, 2, 3), CONTEXT, LinkError),
        ((1, 2), b"", ConfigError),
    ],
)
def test_what_names_no_computation_is_refused(ranks: tuple[int, ...], context: bytes, error: type[Exception]) -> None:
    key = SessionKey()
    certificates = dict.fromkeys(ranks, key.certificate)
    with pytest.raises(error, match=r"parties 0 to 2|must name"):
        relay_link(0, key, ("127.0.0.1", 1), certificates, context, 0.1)


def test_another_certificate_announced_for_oneself_is_refused() -> None:
    certificates = {rank: SessionKey().certificate for rank in range(3)}
    with pytest.raises(LinkError, match="announced for this party"):
        relay_link(0, SessionKey(), ("127.0.0.1", 1), certificates, CONTEXT, 0.1)


# ---------------------------------------------------------------------- a relay that is not honest
def test_the_relay_sees_ciphertext_only() -> None:
    pattern = b"the share of a patient's model: "
    keys = [SessionKey() for _ in range(3)]
    with RogueHub() as rogue:
        links = relay_links(rogue.address, keys=keys)
        links[0].send(1, pattern * 50_000)
        assert links[1].recv(0) == pattern * 50_000
        links[0].send(2, pattern * 500_000)  # nobody reads it: closed in the middle
        time.sleep(0.2)
        links[0]._given_up = True  # as after an error: close does not wait for long
        close(links)
        seen = b"".join(rogue.seen)
        assert rogue.pairs == 6
    assert len(seen) > 2 * len(pattern) * 50_000
    assert pattern not in seen
    for key in keys:  # of which tokens are made
        assert key.certificate[:100] not in seen
        assert key.certificate[-100:] not in seen


@pytest.mark.parametrize("place", [0, 600], ids=["the first bytes", "later in the handshake"])
def test_a_relay_that_changes_the_handshake(place: int) -> None:
    def flip(data: bytes, forward: bool, before: int) -> bytes:
        changed = bytearray(data)
        if before <= place < before + len(data):
            changed[place - before] ^= 1
        return bytes(changed)

    begin = time.monotonic()
    with RogueHub(change=flip) as rogue, pytest.raises(LinkError):
        relay_links(rogue.address, 1.0)
    assert time.monotonic() - begin < 8


def test_a_relay_that_changes_a_message() -> None:
    """One bit of ciphertext: the receiver stops, and gives nothing of the message away."""
    armed = threading.Event()

    def flip(data: bytes, forward: bool, before: int) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1]) if armed.is_set() and forward else data

    with RogueHub(change=flip) as rogue:
        links = relay_links(rogue.address)
        round_trip(links)
        armed.set()
        links[0].send(1, b"one share")
        with pytest.raises(LinkError, match="Party 0 of the computation has stopped"):
            links[1].recv(0)
        close(links)


def test_a_relay_that_repeats_what_was_sent() -> None:
    armed = threading.Event()

    def twice(data: bytes, forward: bool, before: int) -> bytes:
        return data + data if armed.is_set() and forward else data

    with RogueHub(change=twice) as rogue:
        links = relay_links(rogue.address)
        armed.set()
        links[0].send(1, b"one share")
        assert links[1].recv(0) == b"one share"
        with pytest.raises(LinkError, match="has stopped"):
            links[1].recv(0)
        close(links)


@pytest.mark.parametrize(
    "turn", [lambda a, b: (b, a), lambda a, b: (a, 3 - a - b)], ids=["everybody with himself", "with the third"]
)
def test_a_relay_that_ties_wrong_parties_together(turn: Callable[[int, int], tuple[int, int]]) -> None:
    keys = [SessionKey() for _ in range(3)]
    certificates = {rank: key.certificate for rank, key in enumerate(keys)}
    known = {token(keys[a], CONTEXT, certificates, a, b): (a, b) for a, b in permutations(range(3), 2)}

    def turned(seen: bytes, role: bytes) -> bytes:
        return bytes(known[seen] if role == OFFER else turn(*known[seen]))

    with RogueHub(place=turned) as rogue, pytest.raises(LinkError):
        relay_links(rogue.address, 1.0, keys)
    assert rogue.pairs >= 6


def test_a_relay_that_mixes_two_computations() -> None:
    """Right parties, right keys, but one of them is at another round: the handshake covers the context."""
    keys = [SessionKey() for _ in range(3)]
    certificates = {rank: key.certificate for rank, key in enumerate(keys)}
    contexts = (b"round 1", b"round 2", b"round 2")
    known = {
        token(keys[a], c, certificates, a, b): bytes([a, b])
        for c in set(contexts)
        for a, b in permutations(range(3), 2)
    }

    def anyhow(seen: bytes, role: bytes) -> bytes:
        return known[seen]

    with RogueHub(place=anyhow) as rogue:
        with pytest.raises(LinkError):
            relay_links(rogue.address, 1.0, keys, contexts)
        assert rogue.pairs > 0
    with RogueHub(place=anyhow) as rogue:
        close(relay_links(rogue.address, 10.0, keys, (b"round 2",) * 3))


def test_a_relay_that_is_not_there_or_goes_away(hub: RelayHub) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as nobody:
        address = nobody.getsockname()
    with pytest.raises(LinkError, match=r"sent nothing for 0\.3 s"):
        relay_links(address, 0.3)
    links = relay_links(hub.address, 30.0)
    threading.Timer(0.1, hub.close).start()
    begin = time.monotonic()
    with pytest.raises(LinkError, match="has stopped"):
        links[0].recv(1)
    assert time.monotonic() - begin < 5
    close(links)


# ---------------------------------------------------------------------- a party that is not honest, or stops
def test_another_certificate_is_refused(hub: RelayHub) -> None:
    keys = [SessionKey() for _ in range(3)]
    certificates = {rank: key.certificate for rank, key in enumerate(keys)}
    stranger = SessionKey()

    def intrude() -> None:
        """Come to party 1's rendezvous, whose tokens somebody has given away, with another key."""
        context = stranger.context(server=True, pinned={0: certificates[0]})
        with suppress(OSError), socket.create_connection(hub.address, 10) as plain:
            plain.sendall(MAGIC + TAKE + token(keys[0], CONTEXT, certificates, 0, 1))
            plain.recv(1)
            with context.wrap_socket(plain, server_side=True) as connection:
                connection.recv(1)

    intruder = threading.Thread(target=intrude)
    intruder.start()
    with pytest.raises(LinkError):
        relay_link(0, keys[0], hub.address, certificates, CONTEXT, 1.0)
    intruder.join()


def test_a_party_that_does_not_come_ends_the_others(hub: RelayHub) -> None:
    keys = [SessionKey() for _ in range(3)]
    certificates = {rank: key.certificate for rank, key in enumerate(keys)}
    begin = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        tried = [
            pool.submit(relay_link, rank, keys[rank], hub.address, certificates, CONTEXT, 0.5) for rank in range(2)
        ]
        for each in tried:
            with pytest.raises(LinkError, match=r"Party 2 .* sent nothing"):
                each.result()
    assert time.monotonic() - begin < 5
    assert until(lambda: not hub._rooms.guests and not hub._rooms.waiting and not hub._rooms.pairs)


def test_a_party_that_stops_in_the_middle_ends_the_others_at_once(hub: RelayHub) -> None:
    links = relay_links(hub.address, 30.0)
    round_trip(links)
    begin = time.monotonic()
    for connection in (*links[2]._out.values(), *links[2]._into.values()):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # as when its process is killed
    for rank in (0, 1):
        with pytest.raises(LinkError, match="Party 2 of the computation has stopped"):
            links[rank].recv(2)
    assert time.monotonic() - begin < 5
    close(links)
    assert until(lambda: not hub._rooms.pairs and not hub._rooms.tasks)


def test_a_party_that_is_silent_ends_the_others_in_time(hub: RelayHub) -> None:
    links = relay_links(hub.address, 0.5)
    with pytest.raises(LinkError, match=r"Party 1 .* sent nothing for 0\.5 s"):
        links[0].recv(1)
    close(links)


# ---------------------------------------------------------------------- strangers
@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n" * 4], ids=["silent", "garbage"])
def test_squatters_that_know_the_tokens_only_delay(
    hub: RelayHub, guests: Callable[..., socket.socket], said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens were read on the wire: they come to all of party 0's rendezvous before the others do."""
    monkeypatch.setattr(tls, "_HANDSHAKE", 0.3)
    keys = [SessionKey() for _ in range(3)]
    certificates = {rank: key.certificate for rank, key in enumerate(keys)}
    squats = [(TAKE, 0, 1), (TAKE, 0, 2), (OFFER, 1, 0), (OFFER, 2, 0)]
    squatting = [guests(hub, MAGIC + role + token(keys[a], CONTEXT, certificates, a, b)) for role, a, b in squats]

    def connect(rank: int) -> TlsLink:
        return relay_link(rank, keys[rank], hub.address, certificates, CONTEXT, 10.0)

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(connect, 0)
        for plain in (squatting[0], *squatting[2:]):
            assert plain.recv(1) == MET
            plain.sendall(said)
        links = [*pool.map(connect, (1, 2))]
        links.insert(0, first.result())
    round_trip(links)
    close(links)


def test_half_open_connections_keep_nobody_out(guests: Callable[..., socket.socket]) -> None:
    with RelayHub(limits=RelayLimits(waiting=16)) as hub:
        silent = [guests(hub) for _ in range(40)]
        links = relay_links(hub.address, 5.0)
        round_trip(links)
        close(links)
        assert sum(hangs_up(plain, 0.05) for plain in silent) >= 40 - 16


def test_a_flood_from_elsewhere_does_not_put_out_who_waits(guests: Callable[..., socket.socket]) -> None:
    """Whoever knocks most often puts out himself."""
    with RelayHub(limits=RelayLimits(waiting=8)) as hub:
        place = secrets.token_bytes(32)
        honest = guests(hub, MAGIC + OFFER + place)
        assert until(lambda: len(hub._rooms.waiting) == 1)
        try:
            for _ in range(100):
                guests(hub, MAGIC + OFFER + secrets.token_bytes(32), "127.0.0.2")
        except OSError:
            pytest.skip("no second loopback address here")
        assert until(lambda: hub._unsaid == 92)  # 101 came, 8 are still there, and of one it was said
        other = guests(hub, MAGIC + TAKE + place)
        assert honest.recv(1) == other.recv(1) == MET


def test_one_network_of_ipv6_counts_as_one() -> None:
    assert network_of("2001:db8:1:2:aaaa::1") == network_of("2001:db8:1:2::2") == "2001:db8:1:2::/64"
    assert network_of("2001:db8:1:2::1") != network_of("2001:db8:1:3::1")
    assert network_of("fe80::1%lo") == "fe80::/64"
    assert network_of("192.0.2.1") == "192.0.2.1"


def test_a_hello_byte_by_byte_is_cut_off(guests: Callable[..., socket.socket]) -> None:
    with RelayHub(limits=RelayLimits(hello_seconds=0.3)) as hub:
        slow = guests(hub)
        begin = time.monotonic()

        def trickle() -> None:
            for byte in MAGIC + OFFER + bytes(32):
                slow.sendall(bytes([byte]))
                time.sleep(0.05)

        with pytest.raises(OSError, match=r"reset|[Bb]roken"):
            trickle()
        assert time.monotonic() - begin < 1.5
        assert not hub._rooms.waiting


@pytest.mark.parametrize(
    "said", [b"\x16\x03\x01" + bytes(HELLO_BYTES), MAGIC + b"\x03" + bytes(32), b"flbc/r2" + OFFER + bytes(32)]
)
def test_who_says_something_else_is_not_let_in(
    hub: RelayHub, guests: Callable[..., socket.socket], said: bytes
) -> None:
    assert hangs_up(guests(hub, said), 5.0)


def test_who_talks_before_the_other_has_come_is_put_out(hub: RelayHub, guests: Callable[..., socket.socket]) -> None:
    place = secrets.token_bytes(32)
    assert hangs_up(guests(hub, MAGIC + OFFER + place + b"\x16"), 5.0)
    other = guests(hub, MAGIC + TAKE + place)
    other.settimeout(0.1)
    with pytest.raises(TimeoutError):
        other.recv(1)


def test_who_has_hung_up_is_not_met(hub: RelayHub, guests: Callable[..., socket.socket]) -> None:
    place = secrets.token_bytes(32)
    gone = guests(hub, MAGIC + OFFER + place)
    assert until(lambda: len(hub._rooms.waiting) == 1)
    gone.close()
    assert until(lambda: not hub._rooms.waiting)


def test_the_newest_at_a_rendezvous_counts(hub: RelayHub, guests: Callable[..., socket.socket]) -> None:
    place = secrets.token_bytes(32)
    old = guests(hub, MAGIC + OFFER + place)
    assert until(lambda: len(hub._rooms.waiting) == 1)
    new = guests(hub, MAGIC + OFFER + place)
    assert hangs_up(old, 5.0)
    other = guests(hub, MAGIC + TAKE + place)
    assert new.recv(1) == other.recv(1) == MET
    new.sendall(b"hello")
    assert other.recv(5) == b"hello"


# ---------------------------------------------------------------------- limits
def pair(hub: RelayHub, guests: Callable[..., socket.socket]) -> tuple[socket.socket, socket.socket]:
    place = secrets.token_bytes(32)
    one, other = guests(hub, MAGIC + OFFER + place), guests(hub, MAGIC + TAKE + place)
    assert one.recv(1) == other.recv(1) == MET
    return one, other


def test_who_waits_too_long_is_put_out(guests: Callable[..., socket.socket]) -> None:
    with RelayHub(limits=RelayLimits(waiting_seconds=0.2)) as hub:
        assert hangs_up(guests(hub, MAGIC + OFFER + secrets.token_bytes(32)), 5.0)
        assert until(lambda: not hub._rooms.waiting and not hub._rooms.guests)


def test_a_pair_is_cut_when_it_is_idle_and_only_then(guests: Callable[..., socket.socket]) -> None:
    with RelayHub(limits=RelayLimits(idle_seconds=0.5)) as hub:
        one, other = pair(hub, guests)
        for _ in range(10):  # one way alone is enough
            one.sendall(b"x")
            assert other.recv(1) == b"x"
            time.sleep(0.1)
        begin = time.monotonic()
        assert hangs_up(one, 5.0)
        assert hangs_up(other, 5.0)
        assert time.monotonic() - begin < 3


def test_no_more_pairs_than_allowed(guests: Callable[..., socket.socket]) -> None:
    with RelayHub(limits=RelayLimits(pairs=1)) as hub:
        one, other = pair(hub, guests)
        place = secrets.token_bytes(32)
        late = [guests(hub, MAGIC + role + place) for role in (OFFER, TAKE)]
        assert all(hangs_up(plain, 5.0) for plain in late)
        one.close()
        other.close()
        assert until(lambda: not hub._rooms.pairs)
        pair(hub, guests)


def test_nothing_piles_up_before_a_reader_that_does_not_read(guests: Callable[..., socket.socket]) -> None:
    with RelayHub() as hub:
        fast, _idle = pair(hub, guests)
        fast.settimeout(0.5)
        taken = 0
        with suppress(TimeoutError):
            while taken < 2**28:
                taken += fast.send(bytes(1 << 16))
        assert taken < 2**26  # the system's buffers, not the relay's memory
        one, other = pair(hub, guests)
        one.sendall(b"still there")
        assert other.recv(11) == b"still there"


def test_a_pair_that_never_pauses_keeps_nobody_waiting() -> None:
    """Reading and sending that are always ready at once must not hold the relay's only thread."""
    chunks = 1000

    class AlwaysReady:
        left = chunks

        async def sock_recv_into(self, *_: object) -> int:
            self.left -= 1
            return int(self.left > 0)

        async def sock_sendall(self, *_: object) -> None: ...

        def time(self) -> float:
            return 0.0

    async def race() -> int:
        loop, turns = AlwaysReady(), 0
        source, sink = socket.socketpair()
        with source, sink:
            passing = asyncio.create_task(
                RelayHub._pump(SimpleNamespace(_loop=loop), relay_module._Pair(0.0), source, sink)  # type: ignore[arg-type]
            )
            while not passing.done():
                turns += 1
                await asyncio.sleep(0)
        return turns

    assert asyncio.run(race()) >= chunks


def test_one_end_may_go_on_when_the_other_has_said_all(hub: RelayHub, guests: Callable[..., socket.socket]) -> None:
    one, other = pair(hub, guests)
    one.sendall(b"the end")
    one.shutdown(socket.SHUT_WR)
    assert other.recv(7, socket.MSG_WAITALL) == b"the end"
    assert other.recv(1) == b""
    other.sendall(b"not mine")
    assert one.recv(8, socket.MSG_WAITALL) == b"not mine"


def test_what_was_sent_before_hanging_up_arrives(hub: RelayHub, guests: Callable[..., socket.socket]) -> None:
    one, other = pair(hub, guests)
    size = 1 << 22
    sending = threading.Thread(target=lambda: (one.sendall(bytes(size)), one.close()))
    sending.start()
    got = 0
    while data := other.recv(1 << 16):
        got += len(data)
    sending.join()
    assert got == size


@pytest.mark.parametrize("name", ["waiting", "pairs", "hello_seconds", "waiting_seconds", "idle_seconds"])
def test_limits_are_above_zero(name: str) -> None:
    for value in (0, -1, float("nan")):
        with pytest.raises(ConfigError, match=f"{name}=.* must be above zero"):
            RelayLimits(**{name: value})


# ---------------------------------------------------------------------- the hub itself
def test_the_log_has_addresses_and_amounts_and_no_tokens(
    hub: RelayHub, guests: Callable[..., socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    place = secrets.token_bytes(32)
    one, other = guests(hub, MAGIC + OFFER + place), guests(hub, MAGIC + TAKE + place)
    assert one.recv(1) == other.recv(1) == MET
    one.sendall(b"secret")
    assert other.recv(6) == b"secret"
    one.close()
    other.close()
    assert until(lambda: any("event=ended" in line for line in caplog.messages))
    lines = [record.getMessage() for record in caplog.records if record.name == "flbc.verification.relay"]
    assert lines[0] == "event=paired pair=1 first=127.0.0.1 second=127.0.0.1"
    assert lines[1].startswith("event=ended pair=1 bytes=6 seconds=0.")
    assert len(lines) == 2
    assert place.hex() not in caplog.text
    assert repr(place)[2:-1] not in caplog.text


def test_strangers_cannot_fill_the_log(guests: Callable[..., socket.socket], caplog: pytest.LogCaptureFixture) -> None:
    with RelayHub(limits=RelayLimits(waiting=2)) as hub:
        for _ in range(50):
            guests(hub)
        assert until(lambda: hub._unsaid == 47)  # 50 came, 2 are still there, and of one it was said
    assert [record.getMessage() for record in caplog.records] == ["event=full waiting last=127.0.0.1 times=1"]


def test_a_closed_hub_leaves_nothing_behind(guests: Callable[..., socket.socket]) -> None:
    before = threading.active_count()
    hub = RelayHub()
    waits, (one, other) = guests(hub, MAGIC + OFFER + secrets.token_bytes(32)), pair(hub, guests)
    hub.close()
    hub.close()
    assert all(hangs_up(plain, 5.0) for plain in (waits, one, other))
    assert threading.active_count() == before
    with pytest.raises(ConnectionRefusedError):
        guests(hub)


def test_where_it_cannot_listen(hub: RelayHub) -> None:
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{hub.address[1]}: Address already in use"):
        RelayHub(*hub.address)


def test_ipv6() -> None:
    try:
        hub = RelayHub("::1")
    except ConfigError:
        pytest.skip("no IPv6 here")
    with hub:
        links = relay_links(hub.address)
        round_trip(links)
        close(links)
