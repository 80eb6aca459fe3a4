"""A verifier as a Flower node: its model, its data, its links; in simulation, all three at one node.

Flower's simulation engine may run fewer ClientApps at once than there are nodes, and three that wait for each other
would wait for ever. So there one node acts for the three, as three threads: a simulation is one trust domain anyway.
"""

from __future__ import annotations

import copy
import socket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from logging import ERROR
from typing import TYPE_CHECKING, Any

from flwr.app import Context
from flwr.common.logger import log

from ..errors import ConfigError, DependencyError, LinkError
from ..node.checked import PartGiver
from ..node.identity import Identity, development_identity
from ..node.mask_memory import MaskMemory
from ..node.memory import NodeMemory
from ..node.seats import LinkMemory, Seat, seats_of, verifiers
from ..node.terms import policy_of
from ..node.ticket import Ticket, admit
from ..roster import VERIFIER
from ..schemes.sharing import SEATS
from ..verification.link import Link, queue_links
from ..verification.rendezvous import relay_link
from ..verification.road import Endpoint, parse_address
from ..verification.tls import TlsLink
from .node import Node

if TYPE_CHECKING:
    from torch import nn

    from ..node.model_request import ModelsRequest
    from ..node.opening import OpenRequest
    from ..round import Signed
    from ..schemes import IntVector
    from ..verification.committee import Data
    from ..verification.program import Program

#: Makes an untrained model.
ModelMaker = Callable[[], "nn.Module"]
#: Given the Context, returns validation inputs and labels.
Validation = Callable[[Context], tuple[Any, Any]]

_RELAY = "relay://"


@contextmanager
def _own_code(which: str) -> Iterator[None]:
    """Keep what a node's own functions raise on the node: Flower sends an exception's text, and the data it quotes."""
    try:
        yield
    except Exception:
        log(ERROR, "flbc: SecureMod(%s) failed; the server is not told why", which, exc_info=True)
        raise ConfigError(f"SecureMod({which}=...) failed; this node's log says why") from None


@dataclass(frozen=True)
class Panel:
    """The seats that one node holds: one in deployment, all three in simulation.

    Parameters
    ----------
    context : Context
    node : Node
    model : callable or None
        ``SecureMod(model=...)``.
    validation : callable or None
        ``SecureMod(validation=...)``.
    """

    context: Context
    node: Node
    model: ModelMaker | None
    validation: Validation | None
    _programs: dict[tuple[int, ...], Program] = field(default_factory=dict)

    # ------------------------------------------------------------------ hello
    def statement(self, run: str) -> bytes:
        """Return what this node says of its seat in ``hello``, after trying model and data."""
        data, me = self._data(self.context, None), self.node.me
        program = self._program(tuple(data.inputs.shape[1:]))
        data.check(program)
        samples = len(data.inputs)
        if me.simulation:
            return Seat(me.keys.encryption.public, "", b"", program.hash, samples).signed(me).encoded
        box = MaskMemory(self.node.memory).box_key(run).public
        certificate = LinkMemory(self.node.memory).key(run).certificate
        return Seat(box, self._address, certificate, program.hash, samples).signed(me).encoded

    # ------------------------------------------------------------------ stages
    def verify(self, ticket: Ticket, request: ModelsRequest, arrays: Mapping[str, Any], seconds: float) -> list[bytes]:
        """Return the answer of every seat of this node (:meth:`flbc.node.verifier.Verifier.verify`)."""
        from ..node.verifier import Verifier

        admit(ticket, self.node.me, self.node.pins, self.node.memory)
        if not self.node.me.simulation:

            def connect(seat: int) -> Link:
                return self._connect(ticket, seat, seconds)

            program, data = self._prepare(self.context, ticket, arrays)
            verifier = Verifier(self.node.me, self.node.pins, self.node.memory)
            return [verifier.verify(ticket, request, arrays, program, data, connect)]
        links, members = queue_links(seconds), self._members(ticket)
        # One after another: while torch.fx compiles, no other thread may run or train a model.
        ready = [self._prepare(context, ticket, arrays) for _, _, context in members]

        def one(seat: int) -> bytes:
            (me, memory, _), (program, data) = members[seat], ready[seat]
            try:
                return Verifier(me, self.node.pins, memory).verify(
                    ticket, request, arrays, program, data, lambda _: links[seat]
                )
            finally:
                links[seat].close()

        with ThreadPoolExecutor(SEATS) as pool:
            futures = [pool.submit(one, seat) for seat in range(SEATS)]
            errors = [error for future in futures if (error := future.exception()) is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, LinkError)):  # the others follow from the first
            raise error
        return [future.result() for future in futures]

    def give(self, ticket: Ticket, request: OpenRequest) -> list[tuple[Signed, IntVector]]:
        """Return the part of every seat of this node (:meth:`flbc.node.checked.PartGiver.give`)."""
        admit(ticket, self.node.me, self.node.pins, self.node.memory)
        if not self.node.me.simulation:
            return [PartGiver(self.node.me, self.node.pins, self.node.memory).give(ticket, request)]
        return [PartGiver(me, self.node.pins, memory).give(ticket, request) for me, memory, _ in self._members(ticket)]

    def _prepare(self, context: Context, ticket: Ticket, arrays: Mapping[str, Any]) -> tuple[Program, Data]:
        data = self._data(context, arrays if policy_of(ticket.config).cosine else None)
        return self._program(tuple(data.inputs.shape[1:])), data

    # ------------------------------------------------------------------ model and data
    def _program(self, shape: tuple[int, ...]) -> Program:
        from ..verification.program import compile_model

        if self.model is None:
            raise ConfigError("A verifier needs ClientApp(mods=[SecureMod(model=Net, validation=load)])")
        if shape not in self._programs:
            with _own_code("model"):
                module = self.model()
            self._programs[shape] = compile_model(module, shape)
        return self._programs[shape]

    def _data(self, context: Context, arrays: Mapping[str, Any] | None) -> Data:
        """Load validation data; with ``arrays``, the global model, compute this node's own update as well."""
        try:
            import torch
        except ImportError:
            raise DependencyError("A verifier needs PyTorch: pip install 'flbc[torch]'") from None
        from ..verification.committee import Data

        if self.model is None or self.validation is None:
            raise ConfigError("A verifier needs ClientApp(mods=[SecureMod(model=Net, validation=load)])")
        with _own_code("validation"):
            inputs, labels = self.validation(self._shown(context))
            inputs, labels = torch.as_tensor(inputs), torch.as_tensor(labels)
        if inputs.dim() == 0 or len(inputs) == 0:
            raise ConfigError("SecureMod(validation=...) returned no samples")
        if arrays is None:
            return Data(inputs.float(), labels)
        from ..verification.root import root_update

        with _own_code("model and validation"):
            return Data(inputs.float(), labels, root_update(self.model(), arrays, inputs.float(), labels))

    def _shown(self, context: Context) -> Context:
        """Return the context with the number of the seat as partition, in simulation."""
        if not self.node.me.simulation or "num-partitions" not in context.node_config:
            return context
        shown, config = copy.copy(context), context.node_config
        seat = int(config["partition-id"]) - (int(config["num-partitions"]) - SEATS)
        shown.node_config = {**config, "partition-id": seat, "num-partitions": SEATS}
        return shown

    # ------------------------------------------------------------------ simulation
    def _members(self, ticket: Ticket) -> list[tuple[Identity, NodeMemory, Context]]:
        """Return the three verifiers by seat, each with a memory of its own and the context that it would have."""
        members = []
        for party in verifiers(ticket.roster):
            number = int(party.name.removeprefix("node-"))
            context = copy.copy(self.context)
            context.node_config = {**context.node_config, "partition-id": number}
            memory = NodeMemory(self.node.memory.directory / party.name)
            members.append((development_identity(number, (VERIFIER,)), memory, context))
        return members

    # ------------------------------------------------------------------ links
    @cached_property
    def _address(self) -> str:
        address = self.context.node_config.get("flbc-link")
        if not isinstance(address, str):
            raise ConfigError(
                'A verifier must say where the two others reach it: add flbc-link="HOST:PORT" to --node-config, or '
                'flbc-link="relay://HOST:PORT" where it can only dial out (see `flbc relay`)'
            )
        parse_address(address.removeprefix(_RELAY))
        return address

    def _connect(self, ticket: Ticket, seat: int, seconds: float) -> Link:
        """Connect to the two others."""
        seats, context = seats_of(ticket), ticket.label.hash
        key = LinkMemory(self.node.memory).key_of(seats[seat].certificate)
        others = {rank: other for rank, other in enumerate(seats) if rank != seat}
        if self._address.startswith(_RELAY):
            if any(other.address != self._address for other in others.values()):
                raise LinkError("All three verifiers must name the same relay in flbc-link")
            certificates = {rank: other.certificate for rank, other in others.items()}
            hub = parse_address(self._address.removeprefix(_RELAY))
            return relay_link(seat, key, hub, certificates, context, seconds)
        if any(other.address.startswith(_RELAY) for other in others.values()):
            raise LinkError("Either all three verifiers use a relay (flbc-link) or none")
        peers = {rank: Endpoint(*parse_address(other.address), other.certificate) for rank, other in others.items()}
        bind = self.context.node_config.get("flbc-link-bind", self._address)
        host, port = parse_address(str(bind))
        try:
            listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            raise LinkError(
                f"This verifier cannot listen on {host}:{port} ({error.strerror}); set flbc-link-bind in --node-config "
                "if others reach it under another address"
            ) from None
        return TlsLink(seat, key, listener, peers, seconds, context)
