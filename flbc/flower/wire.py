"""How flbc's stages travel in Flower messages.

All stages are messages of type ``train`` with a ConfigRecord named ``flbc``, which the mod answers itself, so that a
ClientApp needs no query handlers. Large bytes travel as an ``Array`` with an own ``stype``: ``.numpy()`` on it raises
TypeError, so a strategy that is not wrapped fails instead of averaging ciphertexts.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from ..crypto.signing import keccak256
from ..encoding import Json, canonical
from ..errors import ProtocolError

RECORD = "flbc"
VERSION = 1
HELLO, TRAIN, REPROTECT, OPEN, EVALUATE = "hello", "train", "reprotect", "open", "evaluate"
#: With functional encryption: derive the key that opens one sum.
DERIVE = "derive"
#: With a shared key: open a sum in part.
PARTIAL = "partial"
#: With masking: deal for a round, and give shares when its sum is opened.
SETUP, UNMASK = "setup", "unmask"
#: With checks of hidden models: the three verifiers check those of an attempt.
VERIFY = "verify"
#: With a ledger: sign a block, judge the final model, sign the settlement.
ATTEST, JUDGE, SETTLE = "attest", "judge", "settle"
STAGES = (HELLO, TRAIN, REPROTECT, DERIVE, PARTIAL, OPEN, SETUP, UNMASK, VERIFY, EVALUATE, ATTEST, JUDGE, SETTLE)
#: Stages that come as messages of type ``evaluate``, because the app answers them.
EVALUATED = (EVALUATE, JUDGE)
#: flwr.common.constant.ErrorCode.MOD_FAILED_PRECONDITION: the mod refuses.
REFUSED = 6
#: flwr.common.constant.ErrorCode.CLIENT_APP_RAISED_EXCEPTION
APP_FAILED = 2
PAYLOAD = "payload"
PAYLOAD_STYPE = "flbc.payload"


def stage_record(stage: str, parts: Mapping[str, bytes | str | int]) -> ConfigRecord:
    """Return the ``flbc`` record of a request or reply."""
    return ConfigRecord({"version": VERSION, "stage": stage, **parts})


def read_record(content: RecordDict) -> ConfigRecord | None:
    """Return the ``flbc`` record, or None; :class:`ProtocolError` if it is of another version or stage."""
    record = content.config_records.get(RECORD)
    if record is None:
        return None
    if record.get("version") != VERSION:
        raise ProtocolError(f"The peer speaks another version of flbc's protocol; this node speaks {VERSION}")
    if record.get("stage") not in STAGES:
        raise ProtocolError("The message names a stage that this version of flbc does not know")
    return record


def text_of(record: ConfigRecord, name: str) -> str:
    """Return a text member; :class:`ProtocolError` if it is missing."""
    value = record.get(name)
    if not isinstance(value, str):
        raise ProtocolError(f"The message lacks {name!r}")
    return value


def number_of(record: ConfigRecord, name: str) -> int:
    """Return an integer member; :class:`ProtocolError` if it is missing."""
    value = record.get(name)
    if type(value) is not int:
        raise ProtocolError(f"The message lacks the integer {name!r}")
    return value


def bytes_of(record: ConfigRecord, *names: str) -> dict[str, bytes]:
    """Return byte members; :class:`ProtocolError` names one that is missing."""
    parts: dict[str, bytes] = {}
    for name in names:
        value = record.get(name)
        if not isinstance(value, bytes):
            raise ProtocolError(f"The message lacks {name!r}")
        parts[name] = value
    return parts


def seal(payload: bytes) -> ArrayRecord:
    """Wrap payload bytes so that nothing mistakes them for numbers."""
    return ArrayRecord({PAYLOAD: Array(dtype="uint8", shape=(len(payload),), stype=PAYLOAD_STYPE, data=payload)})


def unseal(content: RecordDict) -> bytes:
    """Return the payload; :class:`ProtocolError` if the message holds arrays instead."""
    records = list(content.array_records.values())
    if len(records) != 1 or set(records[0]) != {PAYLOAD} or records[0][PAYLOAD].stype != PAYLOAD_STYPE:
        raise ProtocolError("The message holds no protected payload; is SecureMod() the first of the ClientApp's mods?")
    return bytes(records[0][PAYLOAD].data)


def take_payload(content: RecordDict) -> bytes:
    """Remove the payload that travels beside a model, and return it; :class:`ProtocolError` if there is none."""
    record = content.array_records.get(PAYLOAD)
    payload = unseal(RecordDict({} if record is None else {PAYLOAD: record}))
    del content[PAYLOAD]
    return payload


def arrays_hash(record: ArrayRecord) -> bytes:
    """Hash one model: what the genesis and the settlement name."""
    arrays: list[Json] = [
        [name, array.dtype, list(array.shape), array.stype, sha256(array.data).hexdigest()]
        for name, array in record.items()
    ]
    return keccak256(canonical({"arrays": arrays}))


def content_hash(content: RecordDict) -> bytes:
    """Hash the arrays and configs of a train message: what the label calls the model (S6)."""
    arrays: list[Json] = [
        [record, name, array.dtype, list(array.shape), array.stype, sha256(array.data).hexdigest()]
        for record, group in content.array_records.items()
        for name, array in group.items()
    ]
    config: list[Json] = [
        [record, key, _plain(value)]
        for record, group in sorted(content.config_records.items())
        if record != RECORD
        for key, value in sorted(group.items())
    ]
    return keccak256(canonical({"arrays": arrays, "config": config}))


def request(stage: str, parts: Mapping[str, bytes | str | int], node: int, round_: int, body: bytes = b"") -> Message:
    """Return a stage message for one node; ``body`` travels as a sealed array."""
    content = RecordDict({RECORD: stage_record(stage, parts)})
    if body:
        content[PAYLOAD] = seal(body)
    return Message(content, dst_node_id=node, message_type="train", group_id=str(round_))


def sealed(message: Message, stage: str, answer: bytes) -> Message:
    """Return a node's reply to a stage whose answer travels as a sealed array."""
    return Message(RecordDict({RECORD: stage_record(stage, {}), PAYLOAD: seal(answer)}), reply_to=message)


def _plain(value: object) -> Json:
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value  # type: ignore[return-value]  # ConfigRecord holds scalars, bytes and lists of them only
