"""What a relay costs: three parties pass messages round, over direct TLS links and through ``flbc relay``.

All three send to the next and wait for the one before, as in a computation on shares; a *step* is one such exchange.
Everything is on this machine, the relay in a process of its own. Both kinds of links take turns, and the median of the
turns counts. Between machines the way to the relay and on comes on top, for each step.

    python benchmarks/relay.py                # some seconds

The budget: through the relay a step with 8 bytes takes at most a millisecond more, and one with a megabyte at most
three times as long. A budget that is missed gives exit status 1.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from rich.console import Console
from rich.table import Table

from flbc.verification.relay import relay_link
from flbc.verification.road import parse_address
from flbc.verification.tls import Endpoint, SessionKey, TlsLink

TURNS = 5
#: Steps in a turn by size of a message in bytes.
SIZES = {8: 400, 10_000: 400, 1_000_000: 20}


def together(work: Callable[[int], object]) -> list[object]:
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(work, range(3)))


def direct(keys: list[SessionKey]) -> list[TlsLink]:
    doors = [socket.create_server(("127.0.0.1", 0)) for _ in keys]
    places = {i: Endpoint("127.0.0.1", doors[i].getsockname()[1], key.certificate) for i, key in enumerate(keys)}
    made: list[TlsLink] = together(  # type: ignore[assignment]
        lambda i: TlsLink(i, keys[i], doors[i], {peer: place for peer, place in places.items() if peer != i})
    )
    return made


def relayed(keys: list[SessionKey], hub: tuple[str, int], context: bytes) -> list[TlsLink]:
    certificates = {i: key.certificate for i, key in enumerate(keys)}
    made: list[TlsLink] = together(  # type: ignore[assignment]
        lambda i: relay_link(i, keys[i], hub, certificates, context)
    )
    return made


def seconds_of_a_step(links: list[TlsLink], size: int, steps: int) -> float:
    data = bytes(size)

    def work(rank: int) -> None:
        for _ in range(steps):
            links[rank].send((rank + 1) % 3, data)
            links[rank].recv((rank - 1) % 3)

    begin = time.perf_counter()
    together(work)
    return (time.perf_counter() - begin) / steps


def measure(hub: tuple[str, int]) -> dict[str, tuple[float, float]]:
    keys = [SessionKey() for _ in range(3)]
    taken: dict[str, tuple[list[float], list[float]]] = {}
    for turn in range(TURNS):
        ways = (lambda: direct(keys), lambda turn=turn: relayed(keys, hub, bytes([turn])))
        for way, connect in enumerate(ways):
            begin = time.perf_counter()
            links = connect()
            taken.setdefault("connect", ([], []))[way].append(time.perf_counter() - begin)
            for size, steps in SIZES.items():
                seconds = seconds_of_a_step(links, size, steps)
                taken.setdefault(f"step, {size:,} bytes", ([], []))[way].append(seconds)
            for link in links:
                link.close()
    return {name: (median(one), median(other)) for name, (one, other) in taken.items()}


def main() -> int:
    command = [sys.executable, "-c", "from flbc.cli import main; main()", "relay", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        hub = parse_address(process.stdout.readline().split()[1])
        times = measure(hub)
    finally:
        process.terminate()
        process.communicate(timeout=30)
    table = Table("milliseconds", "direct", "relay", "ratio", title="Links among three parties on one machine")
    for name, (one, other) in times.items():
        table.add_row(name, f"{1e3 * one:.2f}", f"{1e3 * other:.2f}", f"{other / one:.1f}")
    Console().print(table)
    small, large = times["step, 8 bytes"], times["step, 1,000,000 bytes"]
    kept = small[1] - small[0] <= 1e-3 and large[1] <= 3 * large[0]
    print("budget kept" if kept else "budget missed")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
