"""Links between three parties: messages arrive in order, silence and strangers end in LinkError, never in waiting."""

from __future__ import annotations

import contextlib
import pickle
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flbc.crypto.signing import keccak256
from flbc.errors import ConfigError, LinkError
from flbc.verification import tls
from flbc.verification.link import Link, queue_links
from flbc.verification.relay import RelayHub
from flbc.verification.road import DirectRoad, Lobby, format_address, parse_address
from flbc.verification.tls import MAX_MESSAGE, Endpoint, SessionKey, TlsLink
from tests.support.relay import relay_links

KEPT = SessionKey().to_bytes()


def listen() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def tls_links(
    timeout: float = 10.0, shown: dict[int, SessionKey] | None = None, contexts: tuple[bytes, ...] = (b"", b"", b"")
) -> list[TlsLink]:
    """Connect three parties over loopback; ``shown`` replaces the key that a party really uses."""
    keys, doors = [SessionKey() for _ in range(3)], [listen() for _ in range(3)]
    places = {rank: Endpoint("127.0.0.1", doors[rank].getsockname()[1], keys[rank].certificate) for rank in range(3)}

    def connect(rank: int) -> TlsLink:
        others = {peer: place for peer, place in places.items() if peer != rank}
        return TlsLink(rank, (shown or {}).get(rank, keys[rank]), doors[rank], others, timeout, contexts[rank])

    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(connect, range(3)))


@pytest.fixture(params=["threads", "tls", "relay"])
def links(request: Any) -> Iterator[list[Link]]:
    with RelayHub() as hub:
        how = {"threads": queue_links, "tls": tls_links, "relay": partial(relay_links, hub.address)}[request.param]
        made: list[Link] = list(how(timeout=5.0))
        yield made
        for link in made:
            link.close()


def all_at_once(links: list[Link], work: Callable[[Link], Any]) -> list[Any]:
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(work, links))


def test_messages_arrive_whole_and_in_order(links: list[Link]) -> None:
    def talk(link: Link) -> list[bytes]:
        others = [rank for rank in range(3) if rank != link.rank]
        for number in range(20):
            for to in others:
                link.send(to, bytes([link.rank, to, number]) * (number + 1))
        link.send(others[0], b"")
        return [link.recv(sender) for number in range(20) for sender in others]

    for rank, got in enumerate(all_at_once(links, talk)):
        others = [other for other in range(3) if other != rank]
        assert got == [bytes([sender, rank, n]) * (n + 1) for n in range(20) for sender in others]


def test_all_may_send_more_than_buffers_hold_before_anybody_reads(links: list[Link]) -> None:
    size = 8 * 2**20

    def talk(link: Link) -> bool:
        data = {to: bytes([link.rank]) * size for to in range(3) if to != link.rank}
        for to, part in data.items():
            link.send(to, part)
        return all(link.recv(sender) == bytes([sender]) * size for sender in data)

    assert all_at_once(links, talk) == [True, True, True]
    assert links[0].traffic.sent_bytes == 2 * size
    assert links[0].traffic.messages == links[0].traffic.rounds == 2


def test_what_was_sent_before_closing_arrives(links: list[Link]) -> None:
    links[0].send(1, b"last words")
    links[0].close()
    assert links[1].recv(0) == b"last words"
    with pytest.raises(LinkError, match="Party 0 of the computation has stopped"):
        links[1].recv(0)


def test_the_last_message_arrives_whole_however_long(links: list[Link]) -> None:
    with ThreadPoolExecutor(1) as pool:
        links[0].send(1, bytes(32 * 2**20))
        closing_ = pool.submit(links[0].close)
        time.sleep(0.2)
        assert links[1].recv(0) == bytes(32 * 2**20)
        closing_.result()


def test_closing_in_the_middle_of_a_message_sends_nothing_in_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """SSLSocket's own shutdown and close drop the encryption first: not while a thread still sends."""
    made, closed = tls_links(10.0), list[bool]()
    close = ssl.SSLSocket._real_close  # type: ignore[attr-defined]

    def watch(connection: ssl.SSLSocket) -> None:
        closed.append(any(courier.is_alive() for courier in made[0]._couriers))
        close(connection)

    def never(connection: ssl.SSLSocket, how: int) -> None:
        raise AssertionError("the encryption was dropped")

    made[0].send(1, bytes(64 * 2**20))  # more than buffers hold, and nobody reads
    made[0]._given_up = True
    with monkeypatch.context() as patch:
        patch.setattr(ssl.SSLSocket, "_real_close", watch)
        patch.setattr(ssl.SSLSocket, "shutdown", never)
        made[0].close()
    assert closed == [False] * 4
    for link in made[1:]:
        link.close()


def test_silence_is_an_error_after_the_time_limit() -> None:
    first, second, _ = queue_links(0.05)
    with pytest.raises(LinkError, match=r"Party 1 .* sent nothing for 0\.05 s"):
        first.recv(1)
    second.close()
    for _ in range(2):
        with pytest.raises(LinkError, match="has stopped"):
            first.recv(1)
    made = tls_links(2.0)
    begin = time.monotonic()
    with pytest.raises(LinkError, match=r"sent nothing for 2 s"):
        made[0].recv(2)
    assert time.monotonic() - begin < 10
    for link in made:
        link.close()


def test_a_party_that_does_not_appear_ends_the_others() -> None:
    keys, door = [SessionKey() for _ in range(3)], listen()
    with closing(listen()) as nobody:
        port = nobody.getsockname()[1]
    others = {rank: Endpoint("127.0.0.1", port, keys[rank].certificate) for rank in (1, 2)}
    with pytest.raises(LinkError, match="Party 1"):
        TlsLink(0, keys[0], door, others, 0.3)
    with pytest.raises(OSError, match=r"Bad file|closed"):
        door.accept()


def test_another_certificate_is_refused() -> None:
    """A node in the middle, with a key of its own: both sides notice."""
    with pytest.raises(LinkError):
        tls_links(0.5, shown={1: SessionKey()})


@pytest.mark.parametrize("said", [b"", b"\x16\x03"], ids=["silent", "beginning a handshake"])
def test_strangers_that_wait_at_the_door_keep_nobody_out(said: bytes) -> None:
    """More than there are places, and there before the others are."""
    keys, doors = [SessionKey() for _ in range(3)], [listen() for _ in range(3)]
    places = {rank: Endpoint("127.0.0.1", doors[rank].getsockname()[1], keys[rank].certificate) for rank in range(3)}
    doors[0].listen(300)
    strangers = [socket.create_connection(("127.0.0.1", places[0].port)) for _ in range(250)]
    for stranger in strangers:
        stranger.sendall(said)

    def connect(rank: int) -> TlsLink:
        time.sleep(0.3 * (rank > 0))
        return TlsLink(rank, keys[rank], doors[rank], {r: p for r, p in places.items() if r != rank}, 15.0)

    begin = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(connect, range(3)))
    assert time.monotonic() - begin < 5
    for end in (*made, *strangers):
        end.close()


#: Knocks as fast as it can, and keeps the last 500 connections; ends by itself.
KNOCKER = """
import collections, socket, sys, time
port, said, end, held = int(sys.argv[1]), bytes.fromhex(sys.argv[2]), time.monotonic() + 12, collections.deque()
while time.monotonic() < end:
    try:
        held.append(socket.create_connection(("127.0.0.1", port), 1))
        held[-1].sendall(said)
    except OSError:
        pass
    if len(held) == 20:
        print("knocking", flush=True)
    if len(held) > 500:
        held.popleft().close()
"""


@pytest.mark.parametrize("said", ["", "16"], ids=["silent", "beginning a handshake"])
def test_a_stranger_that_keeps_knocking_stops_no_round(said: str) -> None:
    keys, doors = [SessionKey() for _ in range(3)], [listen() for _ in range(3)]
    places = {rank: Endpoint("127.0.0.1", doors[rank].getsockname()[1], keys[rank].certificate) for rank in range(3)}

    def connect(rank: int) -> TlsLink:
        time.sleep(0.5 * (rank > 0))  # the places of party 0 are taken when the others come
        return TlsLink(rank, keys[rank], doors[rank], {r: p for r, p in places.items() if r != rank}, 10.0)

    arguments = [sys.executable, "-c", KNOCKER, str(places[0].port), said]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as knocker:
        try:
            assert knocker.stdout is not None
            assert knocker.stdout.readline() == b"knocking\n"
            with ThreadPoolExecutor(3) as pool:
                made = list(pool.map(connect, range(3)))
            assert knocker.poll() is None
        finally:
            knocker.kill()
    made[1].send(0, b"hello")
    assert made[0].recv(1) == b"hello"
    for link in made:
        link.close()


class RudeRoad(DirectRoad):
    """Whoever comes first is put out when it has shaken hands: TLS 1.3 tells the one that dialled that all is well."""

    def __init__(self, context: ssl.SSLContext, door: socket.socket, peers: dict[int, Endpoint]) -> None:
        super().__init__(door, peers)
        self.context, self.rude = context, 2

    def into(self, missing: Collection[int], seconds: float) -> socket.socket:
        plain = super().into(missing, seconds)
        if not self.rude:
            return plain
        plain.settimeout(5.0)
        self.context.wrap_socket(plain, server_side=True).close()
        self.rude -= 1
        raise TimeoutError


def test_who_is_put_out_after_the_handshake_comes_again() -> None:
    keys, doors = [SessionKey() for _ in range(3)], [listen() for _ in range(3)]
    places = {rank: Endpoint("127.0.0.1", doors[rank].getsockname()[1], keys[rank].certificate) for rank in range(3)}
    protocol = f"flbc {keccak256(tls._DOMAIN).hex()}"
    context = keys[0].context(True, {rank: keys[rank].certificate for rank in (1, 2)}, protocol)
    rude = RudeRoad(context, doors[0], {rank: places[rank] for rank in (1, 2)})

    def connect(rank: int) -> TlsLink:
        others = {peer: place for peer, place in places.items() if peer != rank}
        pinned = {peer: place.certificate for peer, place in others.items()}
        road = DirectRoad(doors[rank], others) if rank else rude
        return TlsLink.over(road, rank, keys[rank], pinned, 10.0, b"")

    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(connect, range(3)))
    assert rude.rude == 0
    for sender in (1, 2):
        made[sender].send(0, b"hello")
        assert made[0].recv(sender) == b"hello"
    for link in made:
        link.close()


def test_another_certificate_where_a_party_listens_is_noticed_at_once() -> None:
    """Waiting would not help: the address is the party's own."""
    key, peer, other, door, imposter = SessionKey(), SessionKey(), SessionKey(), listen(), listen()

    def show() -> None:
        context = other.context(server=True, pinned={0: key.certificate})
        plain = imposter.accept()[0]
        with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True):
            pass

    with closing(imposter), ThreadPoolExecutor(1) as pool:
        showing = pool.submit(show)
        places = {rank: Endpoint("127.0.0.1", imposter.getsockname()[1], peer.certificate) for rank in (1, 2)}
        begin = time.monotonic()
        with pytest.raises(LinkError, match="another certificate than the pinned one"):
            TlsLink(0, key, door, places, 30.0)
        assert time.monotonic() - begin < 5
        showing.result()


# ---------------------------------------------------------------------- the lobby
@pytest.fixture
def call() -> Iterator[Callable[..., tuple[socket.socket, socket.socket]]]:
    """Return a function that makes a connection from an address: both ends, the accepted one first."""
    with ExitStack() as stack:
        door = stack.enter_context(listen())

        def connect(host: str = "127.0.0.1") -> tuple[socket.socket, socket.socket]:
            try:
                far = stack.enter_context(socket.create_connection(door.getsockname(), 5, (host, 0)))
            except OSError:
                pytest.skip("no second loopback address here")
            return stack.enter_context(door.accept()[0]), far

        yield connect


def test_a_full_lobby_puts_out_the_oldest_of_the_network_that_has_most(
    call: Callable[..., tuple[socket.socket, socket.socket]],
) -> None:
    with closing(Lobby(4, 60.0, 60.0)) as lobby:
        one = call("127.0.0.2")[0]
        crowd = [call()[0] for _ in range(3)]
        for near in (one, *crowd):
            lobby.admit(near)
        another = call("127.0.0.3")[0]
        lobby.admit(another)
        assert [near.fileno() < 0 for near in (one, *crowd, another)] == [False, True, False, False, False]
        for _ in range(20):
            lobby.admit(call()[0])
        assert one.fileno() >= 0
        assert another.fileno() >= 0
        assert len(lobby) == 4


def test_silence_in_the_lobby_is_short_and_takes_no_place_of_those_who_talk(
    call: Callable[..., tuple[socket.socket, socket.socket]],
) -> None:
    with closing(Lobby(2, 0.2, 60.0)) as lobby:
        near, far = call()
        lobby.admit(near)
        assert list(lobby.spoken()) == []
        far.sendall(b"hello")
        time.sleep(0.01)
        assert list(lobby.spoken()) == [near]
        lobby.talk(near, lobby.move(near))
        silent = [call()[0] for _ in range(5)]
        for each in silent:
            lobby.admit(each)
        assert len(lobby) == 3
        time.sleep(0.25)
        assert list(lobby.spoken()) == [near]
        assert len(lobby) == 1
        assert all(each.fileno() < 0 for each in silent)
    assert near.fileno() < 0


def test_parties_of_different_computations_do_not_connect() -> None:
    """The same keys, other contexts: a connection that was left over must not be taken for one of this computation."""
    with pytest.raises(LinkError):
        tls_links(0.5, contexts=(b"round 1", b"round 2", b"round 2"))
    for link in tls_links(5.0, contexts=(b"round 2", b"round 2", b"round 2")):
        link.close()


def test_a_stranger_at_the_door_stops_nobody() -> None:
    keys, doors = [SessionKey() for _ in range(3)], [listen() for _ in range(3)]
    places = {rank: Endpoint("127.0.0.1", doors[rank].getsockname()[1], keys[rank].certificate) for rank in range(3)}

    def knock(rank: int) -> None:
        with socket.create_connection(("127.0.0.1", places[rank].port)) as plain:
            context = SessionKey().context(server=False, pinned={rank: places[rank].certificate})
            with pytest.raises(OSError), context.wrap_socket(plain) as connection:  # noqa: PT011, PT012
                connection.sendall(b"let me in")
                connection.recv(1)  # TLS 1.3: the server's refusal arrives with the first read

    def connect(rank: int) -> TlsLink:
        return TlsLink(rank, keys[rank], doors[rank], {r: p for r, p in places.items() if r != rank}, 10.0)

    with ThreadPoolExecutor(6) as pool:
        strangers = [pool.submit(knock, rank) for rank in range(3)]
        time.sleep(0.1)
        made = list(pool.map(connect, range(3)))
        for stranger in strangers:
            stranger.result()
    made[0].send(1, b"hello")
    assert made[1].recv(0) == b"hello"
    for link in made:
        link.close()


@pytest.mark.parametrize("ranks", [(1, 1), (0, 1), (1, 3), (1,)])
def test_other_ranks_than_the_two_others_are_refused(ranks: tuple[int, ...]) -> None:
    key, door = SessionKey(), listen()
    with closing(door), pytest.raises(LinkError, match="parties 0 to 2"):
        TlsLink(0, key, door, {rank: Endpoint("127.0.0.1", 1, b"") for rank in ranks})


def test_a_message_that_is_too_long_is_not_taken() -> None:
    made = tls_links(2.0)
    made[0]._out[1].sendall((MAX_MESSAGE + 1).to_bytes(8, "little"))
    with pytest.raises(LinkError, match="at most"):
        made[1].recv(0)
    for link in made:
        link.close()


def test_sending_to_a_party_that_is_gone_is_noticed() -> None:
    made = tls_links(5.0)
    made[1].close()

    def flood() -> None:
        for _ in range(200):
            made[0].send(1, bytes(1 << 16))
            time.sleep(0.01)

    with pytest.raises(LinkError, match="takes no more messages"):
        flood()
    for link in (made[0], made[2]):
        link.close()


def test_keys_of_a_session_stay_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    key = SessionKey()
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(key)
    assert "PRIVATE" not in repr(key)
    assert SessionKey().certificate != key.certificate
    folders: list[Path] = []
    load = ssl.SSLContext.load_cert_chain

    def watch(context: ssl.SSLContext, path: Path) -> None:
        folders.append(path)
        assert path.stat().st_mode & 0o077 == 0
        load(context, path)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", watch)
    assert key.context(server=True, pinned={}).minimum_version == ssl.TLSVersion.TLSv1_3
    assert not folders[0].parent.exists()


def test_a_session_key_that_was_kept_is_the_same_key() -> None:
    keys = [SessionKey() for _ in range(3)]
    kept = [SessionKey.from_bytes(key.to_bytes()) for key in keys]
    assert [key.certificate for key in kept] == [key.certificate for key in keys]
    assert [key.to_bytes() for key in kept] == [key.to_bytes() for key in keys]
    with RelayHub() as hub:  # one party uses what it has just made, and the others what they have kept
        for link in relay_links(hub.address, 5.0, keys=[keys[0], *kept[1:]]):
            link.close()
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(kept[0])


def damaged(data: bytes, how: str) -> bytes:
    other = SessionKey().to_bytes()
    return {
        "empty": b"",
        "short": data[:40],
        "no certificate": data[:51],
        "longer": data + b"\0",
        "other kind": b"F" + data[1:],
        "zero": data[:19] + bytes(32) + data[51:],
        "too large": data[:19] + b"\xff" * 32 + data[51:],
        "of another": data[:51] + other[51:],
        "signature": data[:-1] + bytes([data[-1] ^ 1]),
        "huge": data + bytes(5000),
    }[how]


@pytest.mark.parametrize(
    "how",
    [
        *("empty", "short", "no certificate", "longer", "other kind"),
        *("zero", "too large", "of another", "signature", "huge"),
    ],
)
def test_what_is_no_session_key_is_refused(how: str) -> None:
    data = SessionKey().to_bytes()
    with pytest.raises(ConfigError, match="start the session again") as caught:
        SessionKey.from_bytes(damaged(data, how))
    assert data[19:51].hex() not in repr(caught.value)
    assert caught.value.__cause__ is None


@given(st.binary(max_size=600), st.integers(0, 600), st.booleans())
@settings(max_examples=60, deadline=None)
def test_no_bytes_make_anything_but_a_key_or_an_error(noise: bytes, place: int, behind: bool) -> None:
    data = KEPT[:place] + noise + (KEPT[place + len(noise) :] if behind else b"")
    try:
        assert SessionKey.from_bytes(data).to_bytes() == data == KEPT
    except ConfigError:
        assert data != KEPT


@given(st.one_of(st.ip_addresses().map(str), st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,60}[a-z0-9])?", fullmatch=True)))
def test_addresses_are_read_as_they_are_written(host: str) -> None:
    for port in (1, 9600, 65535):
        assert parse_address(format_address(host, port)) == (host, port)


@given(st.text(max_size=30))
def test_no_text_makes_anything_but_an_address_or_an_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        host, port = parse_address(text)
        assert host
        assert 1 <= port <= 65535


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("node.example", "lacks a port"),
        ("", "lacks a port"),
        (":9600", "no host"),
        ("no de:9600", "no host"),
        ("node\n:9600", "no host"),
        ("::1:9600", "in brackets"),
        ("[::1]9600", "in brackets|no port"),
        ("[node]:9600", "no IPv6 address"),
        ("[]:9600", "no IPv6 address"),
        ("node:0", "from 1 to 65535"),
        ("node:65536", "from 1 to 65535"),
        ("node:-1", "no port"),
        ("node:٣", "no port"),
        ("node:", "no port"),
        ("http://node:9600", "several colons"),
    ],
)
def test_what_is_no_address_is_refused(text: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        parse_address(text)


def test_port_0_where_a_free_one_may_be_taken() -> None:
    assert parse_address("[::]:0", lowest_port=0) == ("::", 0)


def test_threads_of_closed_links_end() -> None:
    before = threading.active_count()
    made = tls_links(5.0)
    for link in made:
        link.close()
    end = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() <= before
