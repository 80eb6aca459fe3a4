"""One changed byte anywhere in an exported run is found, by the audit or by the strict parser."""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flbc.errors import ProtocolError, VerificationError
from flbc.ledger.audit import audit
from flbc.ledger.headers import check_header
from flbc.ledger.records import Header, TaskHistory

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"


MEMBERS = [name for name in TaskHistory.__dataclass_fields__ if name != "headers"]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path, value


def flips(path: tuple[Any, ...], value: Any, dice: random.Random, every: bool = LONG) -> Iterator[Any]:
    """Yield the leaf with one byte changed: at both ends and somewhere between; all bytes in the long profile."""
    if value is None:
        yield from (0, "", {}, [])
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        size = max(1, (value.bit_length() + 7) // 8)
        yield from (value ^ 1 << (8 * at + dice.randrange(8)) for at in range(size if every else min(size, 2)))
    elif path[-1] in ("status", "link", "reward", "amount"):
        at = dice.randrange(len(value))
        yield value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]
    elif not value:
        yield "00"
    else:
        raw = bytearray.fromhex(value)
        chosen = set(range(len(raw))) if every else {0, len(raw) - 1, dice.randrange(len(raw))}
        for at in sorted(chosen):
            raw[at] ^= 1 << dice.randrange(8)
            yield raw.hex()
            raw = bytearray.fromhex(value)


def put(data: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        data = data[key]
    data[path[-1]] = value


def passes(data: dict[str, Any]) -> bool:
    try:
        return audit(TaskHistory.from_dict(data)).ok
    except ProtocolError:  # the strict parser found it
        return False


@pytest.mark.timeout(1200)  # the long profile changes every byte
@pytest.mark.parametrize("member", MEMBERS)
def test_a_changed_byte_is_found_in_every_field(finished, member):
    data, dice = finished.to_dict(), random.Random(member)
    touched = 0
    for path, value in list(leaves(data[member], (member,))):
        for changed in flips(path, value, dice):
            put(data, path, changed)
            assert not passes(data), f"{'.'.join(map(str, path))}: {value!r} became {changed!r} unseen"
            put(data, path, value)
            touched += 1
    assert touched or data[member] == []
    assert passes(data)


def test_a_changed_byte_is_found_in_every_header(finished):
    # A header is checked by itself, which is quick: all bytes.
    for header in finished.headers:
        data = header.to_dict()
        for path, value in list(leaves(data)):
            for changed in flips(path, value, random.Random(1), every=True):
                put(data, path, changed)
                with pytest.raises((ProtocolError, VerificationError)):
                    check_header(Header.from_dict(data))
                put(data, path, value)
    data = finished.to_dict()
    for entry in data["headers"]:
        for name in ("number", "time"):
            entry[name] ^= 1
            assert not passes(data), f"{name} of the header {entry['number']} was changed unseen"
            entry[name] ^= 1


def test_no_list_can_be_cut_doubled_or_turned_around(finished):
    data = finished.to_dict()

    def lists(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], list[Any]]]:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(item, list):
                yield (*path, key), item
            if isinstance(item, dict | list):
                yield from lists(item, (*path, key))

    for path, value in list(lists(data)):
        if path[-1] == "fields" and path[1] != 0:
            continue
        changes = [value[1:], value[:-1], value + value[-1:], value[::-1]] if value else []
        for changed in changes:
            # A registration that stands there twice changes nothing: the last one counts.
            if changed != value and not (path == ("registrations",) and len(changed) > len(value)):
                put(data, path, changed)
                assert not passes(data), f"{path}: a list was changed unseen"
                put(data, path, value)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("task"),
        lambda d: d.update(more=1),
        lambda d: d["state"].pop("head"),
        lambda d: d.update(task=d["task"].upper()),
        lambda d: d.update(task="0x" + d["task"]),
        lambda d: d.update(chain_id=str(d["chain_id"])),
        lambda d: d.update(chain_id=True),
        lambda d: d.update(chain_id=-1),
        lambda d: d.update(version=2),
        lambda d: d.update(version=1.0),
        lambda d: d.update(blocks={}),
        lambda d: d["blocks"][0].update(leader=None),
        lambda d: d["state"].update(status="Settled"),
        lambda d: d["state"].update(reward=1),
        lambda d: d["state"].update(reward="01"),
        lambda d: d["state"].update(reward="-1"),
        lambda d: d["state"].update(reward="١"),
        lambda d: d["state"].update(reward=str(2**256)),
    ],
)
def test_the_parser_is_strict(finished, change: Callable[[dict[str, Any]], object]):
    data = copy.deepcopy(finished.to_dict())
    change(data)
    with pytest.raises(ProtocolError):
        TaskHistory.from_dict(data)


def test_a_file_must_be_canonical(finished):
    with pytest.raises(ProtocolError, match="canonical"):
        TaskHistory.unpack(json.dumps(finished.to_dict()).encode())
