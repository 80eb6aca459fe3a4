"""Links between three parties: messages arrive in order, silence and strangers end in LinkError, never in waiting."""

from __future__ import annotations

import pickle
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flbc.errors import LinkError
from flbc.verification.link import Link, queue_links
from flbc.verification.tls import MAX_MESSAGE, Endpoint, SessionKey, TlsLink


def listen() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def tls_links(timeout: float = 10.0, shown: dict[int, SessionKey] | None = None) -> list[TlsLink]:
    """Connect three parties over loopback; ``shown`` replaces the key that a party really uses."""
    keys, doors = [SessionKey() for _ in range(3)], [listen() for _ in range(3)]
    places = {rank: Endpoint("127.0.0.1", doors[rank].getsockname()[1], keys[rank].certificate) for rank in range(3)}

    def connect(rank: int) -> TlsLink:
        others = {peer: place for peer, place in places.items() if peer != rank}
        return TlsLink(rank, (shown or {}).get(rank, keys[rank]), doors[rank], others, timeout)

    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(connect, range(3)))


@pytest.fixture(params=["threads", "tls"])
def links(request: Any) -> Iterator[list[Link]]:
    made: list[Link] = list(queue_links(2.0)) if request.param == "threads" else list(tls_links(2.0))
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


def test_threads_of_closed_links_end() -> None:
    before = threading.active_count()
    made = tls_links(5.0)
    for link in made:
        link.close()
    end = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < end:
        time.sleep(0.01)
    assert threading.active_count() <= before
