"""Three parties of a computation on shares, as threads."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from flbc.verification.link import QueueLink, queue_links
from flbc.verification.sharing import ArithmeticParty

T = TypeVar("T")
P = TypeVar("P", bound=ArithmeticParty)


def together(
    work: Callable[[P], T], kind: type[P] = ArithmeticParty, timeout: float = 10.0
) -> tuple[list[T], list[QueueLink]]:
    """Run the same code as each party; return the results and the links by rank."""
    keys = [secrets.token_bytes(32) for _ in range(3)]
    links = list(queue_links(timeout))
    parties = [kind(link, keys[link.rank], keys[(link.rank + 1) % 3]) for link in links]
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(work, parties)), links
