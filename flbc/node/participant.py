"""A client's half of a round: keep the training result, encode, protect, sign (rules S7, S9, S14, S16, S18)."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..codec import EncodedUpdate, Layout
from ..codec.layout import check_finite
from ..crypto.signing import keccak256
from ..encoding import canonical, parse, unhex
from ..errors import CodecError, PolicyError, ProtocolError
from ..privacy.clipping import clip_update
from ..privacy.mechanism import GaussianMechanism
from ..round import ZERO, Signed, Submission
from ..task import TaskConfig
from . import halves
from .ahead import Ahead
from .attestor import Attestor, SoftwareAttestor
from .draw import make_draw
from .identity import Identity
from .memory import NodeMemory
from .model_plan import folded_update
from .opening import charge
from .pins import Pins
from .terms import codec_of, declared_weight, mechanism_of, model_plan, vector_plan
from .ticket import Ticket, admit
from .trained import Trained, encode_waiting, gather

#: Metric in which an app of the example unit says to which norm it clipped.
CLIP_METRIC = "clip-norm"
#: Metric in which an app of the example unit says at which rate it sampled its examples.
RATE_METRIC = "sample-rate"
#: Fixed point (flbc.codec.exact) holds weights below this.
MAX_WEIGHT = 2**28


@dataclass(frozen=True, slots=True)
class Reply:
    """What a client sends: a signed submission and its payload, or the size class that the next attempt needs.

    Parameters
    ----------
    submission : Signed or None
        None when only ``size_class`` is answered.
    payload : bytes
    metric_names : tuple of str
        In clear; the values are inside the sum.
    size_class : float
        Power of two above the weight when the frame's largest weight does not hold it; else 0.
    proof : bytes
        Proof of the submission's draw (:mod:`flbc.node.draw`); empty without a ledger.
    next_keys : bytes
        With masking, what the client deals for the next round; else empty.
    """

    submission: Signed | None
    payload: bytes = b""
    metric_names: tuple[str, ...] = ()
    size_class: float = 0.0
    proof: bytes = b""
    next_keys: bytes = b""

    def header(self) -> bytes:
        """Encode all but the payload."""
        signed = None if self.submission is None else self.submission.to_dict()
        metrics, size_class = list(self.metric_names), float(self.size_class)
        ride = {"proof": self.proof.hex(), "next_keys": self.next_keys.hex()}
        return canonical({"submission": signed, "metrics": metrics, "size_class": size_class, **ride})

    @classmethod
    def parse(cls, header: bytes, payload: bytes) -> Reply:
        """Undo :meth:`header`; nothing is verified but the form."""
        value = parse(header, "reply")
        members = {"submission", "metrics", "size_class", "proof", "next_keys"}
        if set(value) != members or not isinstance(value["metrics"], list):
            raise ProtocolError(f"A reply must hold {', '.join(sorted(members))}")
        if not isinstance(value["size_class"], float) or not math.isfinite(value["size_class"]):
            raise ProtocolError("The size class must be a finite number")
        signed = None if value["submission"] is None else Signed.from_dict(Submission, value["submission"])
        proof, next_keys = (unhex(value[name], None, name) for name in ("proof", "next_keys"))
        metrics = tuple(str(name) for name in value["metrics"])
        return cls(signed, payload, metrics, value["size_class"], proof, next_keys)


def content_of(next_keys: bytes) -> bytes:
    """Return what a submission says of what rides on it: its hash, zero for nothing."""
    return keccak256(next_keys) if next_keys else ZERO


class Participant:
    """A training node.

    Parameters
    ----------
    me : Identity
    pins : Pins
    memory : NodeMemory
    """

    def __init__(self, me: Identity, pins: Pins, memory: NodeMemory) -> None:
        self.me, self.pins, self.memory = me, pins, memory
        self.attestor: Attestor = SoftwareAttestor()

    def must_train(self, ticket: Ticket, model: bytes) -> bool:
        """Check a train ticket; False when this round's update is kept already and only needs protection.

        Parameters
        ----------
        ticket : Ticket
        model : bytes
            Hash of the arrays and train config that arrived with it.

        Raises
        ------
        FlbcError
            If the ticket is not acceptable (:func:`flbc.node.ticket.admit`), or the label commits to another model.
        """
        self._admit(ticket)
        mechanism = mechanism_of(ticket.config)
        if mechanism is not None and mechanism.unit == "example" and self.me.examples > mechanism.max_examples:
            raise PolicyError(
                f"This node declares {self.me.examples} examples, and the task was planned for at most "
                f"{mechanism.max_examples}; start a new task"
            )
        if ticket.label.model != model:
            raise ProtocolError("The label commits to another model or train config than the one that was sent")
        return self.memory.trained(ticket.label) is None

    def keep(self, ticket: Ticket, trained: Trained) -> None:
        """Check a training result and keep it on the node.

        Raises
        ------
        CodecError
            If the weight is not a finite number >= 0, or exceeds the declared number of examples.
        """
        if not 0 <= trained.weight < MAX_WEIGHT:
            raise CodecError(f"The weight (num-examples) must be a number from 0 to below {MAX_WEIGHT:,}")
        mechanism = mechanism_of(ticket.config)
        if mechanism is not None and mechanism.unit == "example":
            declared = ticket.roster.parties[ticket.roster.index(self.me.name)].examples
            if trained.weight > declared:
                raise CodecError(
                    f"Trained on more than the {declared} examples that are declared; declare the size of the "
                    "training set with SecureMod(examples=...) or `examples` in the roster"
                )
        if mechanism is not None:
            vector_plan(ticket.config, trained.layout)  # before as much noise is drawn as the terms say
        compression = codec_of(ticket.config).compression
        if compression is not None:
            gather(ticket, trained, compression, self.memory)
        local = mechanism is not None and mechanism.where == "local"
        if mechanism is not None and local:
            # Once a round: who could open single updates would take the mean over attempts with fresh noise.
            trained = replace(trained, noise=mechanism.draw(mechanism.dimension))
        self.memory.keep_trained(ticket.label, trained.to_bytes(), noised=local)

    def submit(self, ticket: Ticket, ahead: Ahead | None = None) -> Reply:
        """Protect and sign the kept update for this attempt; the same label always gets the same reply.

        ``ahead`` is what was made for the payload while the node trained.
        """
        index = self._admit(ticket)
        stored = self.memory.answered(ticket.label)
        if stored is not None:
            halves.answered(ticket, self.memory)  # in case this node was killed in between
            return _unpack_reply(stored)
        kept = self.memory.trained(ticket.label)
        if kept is None:
            raise ProtocolError(f"This node has no update for round {ticket.label.round}; it lost it or never trained")
        trained = Trained.from_bytes(kept)
        weight = declared_weight(ticket.config, ticket.roster.parties[index].examples)
        if weight is not None:
            trained = replace(trained, weight=weight)
        limit, declared = ticket.frame.max_weight, ticket.config.codec["max_examples"]
        if ticket.config.privacy is None and trained.weight > limit:
            if declared is not None:
                raise CodecError(f"The weight exceeds max_examples = {declared:g}; raise it in the strategy's settings")
            return Reply(None, size_class=2.0 ** math.ceil(math.log2(trained.weight)))
        if ticket.config.privacy is None and limit == 0:  # weight 0, and nobody knows the others' yet
            return Reply(None, size_class=1.0)
        mechanism = mechanism_of(ticket.config)
        if mechanism is not None and mechanism.where != "opener":  # whatever happens to the update afterwards (S20)
            charge(ticket, self.memory, self.pins.policy.max_total_epsilon)
        encoded, carry = self._encode(ticket, trained)
        nonce = secrets.token_bytes(32)
        protector = halves.protector(ticket, self.me, self.memory)
        if ahead is not None:
            ahead.hand_to(protector)
        payload = protector.protect(encoded.values, ticket.label.hash, nonce)
        draw, proof, proof_hash = 0, b"", ZERO
        if ticket.beacon is not None:  # for the block after this one, so that its leader is known beforehand
            draw, proof = make_draw(self.me.keys, ticket.beacon.seed, ticket.beacon.height + 1)
            proof_hash = keccak256(proof)
        next_keys = halves.next_keys(ticket, self.me, self.memory)
        compute_ms = self.attestor.attest(trained.compute_ms)
        hashes = keccak256(payload), content_of(next_keys), proof_hash
        submission = Submission(ticket.label.hash, index, draw, compute_ms, nonce, *hashes)
        signed = Signed.make(submission, self.me.keys.signing, ticket.label.domain)
        reply = Reply(signed, payload, encoded.metric_names, proof=proof, next_keys=next_keys)
        header = reply.header()
        packed = len(header).to_bytes(4, "big") + header + reply.payload
        kept = self.memory.keep_answer(ticket.label, packed, carry)
        halves.answered(ticket, self.memory)
        return _unpack_reply(kept)

    def set_up(self, ticket: Ticket) -> bytes:
        """Deal for the round of a ticket that names who takes part; what rides on submissions otherwise."""
        self._admit(ticket)
        return halves.set_up(ticket, self.me, self.memory)

    def _admit(self, ticket: Ticket) -> int:
        return admit(ticket, self.me, self.pins, self.memory)

    def _encode(self, ticket: Ticket, trained: Trained) -> tuple[EncodedUpdate, bytes]:
        """Return what is summed and, with compression, what it leaves to send."""
        layout = trained.layout
        if ticket.config.verification is not None:
            shared = model_plan(ticket.config, layout)
            return shared.encode(trained.update, trained.weight, trained.metrics, ticket.frame), b""
        plan = vector_plan(ticket.config, layout)
        mechanism = mechanism_of(ticket.config)
        if ticket.indices is not None:
            return encode_waiting(ticket, trained, plan, ticket.indices, self.memory)
        if mechanism is None:
            return plan.encode(trained.update, trained.weight, trained.metrics, ticket.frame), b""
        floats = {t.name: trained.update[t.name] for t in layout.of_kind("float") if t.name in trained.update}
        if mechanism.unit == "client":
            floats, _ = clip_update(floats, mechanism.clip_norm)
        encoded = plan.encode_private(floats, mechanism.step)
        mechanism.check(encoded.values)
        if mechanism.where != "local":
            return encoded, b""
        if trained.noise is None:
            raise ProtocolError("The kept update lacks its noise, so it is not sent; train the round again")
        return replace(encoded, values=mechanism.add_local(encoded.values, trained.noise)), b""


def check_clipping(mechanism: GaussianMechanism | None, clip_norm: object) -> None:
    """Raise unless an app of the example unit says that it clipped to the task's norm.

    The node cannot see how a gradient sum was made. So the app has to say which norm it used: an app that was told
    another one, or that trained without clipping at all, is caught before anything is sent.

    Raises
    ------
    PolicyError
        Says what to add to the train reply.
    """
    if mechanism is not None and mechanism.unit == "example" and clip_norm != mechanism.clip_norm:
        raise PolicyError(
            f"With Privacy(unit='example') the train reply's MetricRecord must say the norm that was used: "
            f'"{CLIP_METRIC}": {mechanism.clip_norm!r} (it stays on the node)'
        )


def check_sampling(mechanism: GaussianMechanism | None, rate: object) -> None:
    """Raise unless an app of the example unit says that it sampled at the task's rate.

    With a rate of 1 an app that says nothing sampled nothing. Without this a server could announce a small rate, for
    which little noise is enough, to apps that train on all of their examples.

    Raises
    ------
    PolicyError
        Says what to do, and what to add to the train reply.
    """
    if mechanism is None or mechanism.unit != "example":
        return
    if rate is None and mechanism.sampling_rate == 1:
        return
    if rate != mechanism.sampling_rate:
        q = mechanism.sampling_rate
        raise PolicyError(
            f"With Privacy(sampling_rate={q!r}) the app must train on flbc.privacy.poisson_sample(examples, {q!r}), "
            f'and the train reply\'s MetricRecord must say so: "{RATE_METRIC}": {q!r} (it stays on the node)'
        )


def _unpack_reply(stored: bytes) -> Reply:
    size = int.from_bytes(stored[:4], "big")
    return Reply.parse(stored[4 : 4 + size], stored[4 + size :])


def update_of(config: TaskConfig, layout: Layout, old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Turn what a training function returned into what is summed.

    Parameters
    ----------
    config : TaskConfig
    layout : Layout
        Of the global model.
    old, new : mapping of str to ndarray
        Global arrays; returned arrays (example unit: clipped gradient sums).

    Returns
    -------
    dict of str to ndarray
        ``new - old`` in float64 (int64 for integer arrays), or the gradient sums.

    Raises
    ------
    LayoutError, NonFiniteError
        Name the array and, for NaN and infinity, the index.
    """
    mechanism: GaussianMechanism | None = mechanism_of(config)
    if mechanism is not None and mechanism.unit == "example":
        # A record may not decide whether an error is raised: what is not finite counts as zero (S19).
        finite = {name: np.nan_to_num(np.asarray(a, np.float64), posinf=0.0, neginf=0.0) for name, a in new.items()}
        layout.check(finite, what="clipped gradient sum", partial=True)
        return finite
    if config.verification is not None:
        return folded_update(layout, old, new)
    layout.check(new)
    update = {}
    for tensor in layout.tensors:
        wide = np.int64 if tensor.kind == "integer" else np.float64
        update[tensor.name] = new[tensor.name].astype(wide) - old[tensor.name].astype(wide)
        check_finite(tensor.name, update[tensor.name], "update")
    return update
