"""What a client computes ahead while it trains: blindings of Paillier ciphertexts, where that is worth a process."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Self

from ..crypto.blinding import MAX_BLINDINGS, WORTH_SECONDS, BlindingWorker, core_is_free, expected_seconds
from ..errors import CiphertextError
from ..schemes import Protector
from ..schemes.paillier import PaillierProtector
from . import halves
from .paillier import SCHEME, public_key

if TYPE_CHECKING:
    from .identity import Identity
    from .memory import NodeMemory
    from .ticket import Ticket

_log = logging.getLogger(__name__)


class Ahead:
    """Blindings for the ciphertexts of one payload, made by a process that ends with the ``with`` block."""

    def __init__(self) -> None:
        self._worker: BlindingWorker | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._worker is not None:
            self._worker.close()

    def begin(self, ticket: Ticket, me: Identity, memory: NodeMemory) -> None:
        """Start making blindings for a ticket that was admitted, where that pays.

        It pays where they take more than a second and a core is free. In simulation all nodes share the cores.
        """
        if ticket.config.scheme != SCHEME or me.simulation or not core_is_free():
            return
        protector, public = halves.protector(ticket, me, memory), public_key(ticket)
        if not isinstance(protector, PaillierProtector):
            return
        if expected_seconds(public, protector.ciphertexts) <= WORTH_SECONDS:
            return
        try:
            self._worker = BlindingWorker(public, min(protector.ciphertexts, MAX_BLINDINGS))
        except (OSError, RuntimeError) as error:  # it saves time, and nothing depends on it
            _log.warning("flbc: no process for blindings: %s", error)

    def hand_to(self, protector: Protector) -> None:
        """Give a protector what is ready, once; it makes the rest itself."""
        if self._worker is None or not isinstance(protector, PaillierProtector):
            return
        try:
            blindings = self._worker.take()
        except CiphertextError as error:
            _log.warning("flbc: blindings that were made ahead are not used: %s", error)
            return
        protector.refill(blindings[: protector.ciphertexts])
