import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flbc.crypto import dlog
from flbc.crypto.dlog import MAX_LIMIT, DiscreteLog
from flbc.crypto.group import GroupKey, encode_scalar, multiply, parse_point
from flbc.errors import CiphertextError

LIMIT = 100_000
SIZE = 4096
STEP = 2 * SIZE + 1


@pytest.fixture(scope="module")
def base():
    return GroupKey.generate().public


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("tables")


@pytest.fixture(scope="module")
def solver(base, directory):
    solver = DiscreteLog(base, LIMIT, directory)
    assert solver.size == SIZE
    return solver


def powers(base, numbers):
    point = parse_point(base, "base")
    return [multiply(point, int(number)) for number in numbers]


def edges(limit):
    """Zero, the borders of the table and of each giant step, the borders of the range, and what lies beyond."""
    near = [0, 1, SIZE - 1, SIZE, SIZE + 1, STEP - 1, STEP, STEP + 1, 3 * STEP + SIZE, 3 * STEP + SIZE + 1]
    near += [limit - 1, limit, limit + 1, limit + SIZE, 10 * limit]
    return sorted({sign * number for number in near for sign in (1, -1)})


@pytest.mark.parametrize("limit", [LIMIT, LIMIT - 1, SIZE + 1, SIZE, SIZE - 1, STEP, STEP + SIZE, 7, 1, 0])
def test_edges(solver, base, limit):
    numbers = edges(limit)
    expected = [number if abs(number) <= limit else None for number in numbers]
    assert solver.solve(powers(base, numbers), limit) == expected
    assert [solver.solve([point], limit)[0] for point in powers(base, numbers)] == expected  # one by one


@given(st.lists(st.integers(-LIMIT, LIMIT), max_size=12), st.integers(0, LIMIT))
def test_every_number_in_range_is_found_and_no_other(solver, base, numbers, limit):
    assert solver.solve(powers(base, numbers), limit) == [n if abs(n) <= limit else None for n in numbers]


def test_powers_of_another_base_are_not_found(solver):
    assert solver.solve(powers(GroupKey.generate().public, range(1, 20))) == [None] * 19


def test_the_whole_table(solver, base):
    numbers = [*range(-SIZE, SIZE + 1, 97), SIZE, -SIZE]
    assert solver.solve(powers(base, numbers)) == numbers


@pytest.mark.parametrize("limit", [0, -1, MAX_LIMIT + 1])
def test_ranges_that_are_refused(base, limit):
    with pytest.raises(ValueError, match="limit"):
        DiscreteLog(base, limit)


def test_limit_beyond_the_planned_range_is_refused(solver):
    with pytest.raises(ValueError, match="limit"):
        solver.solve([], LIMIT + 1)


def test_base_must_be_a_point():
    with pytest.raises(CiphertextError, match="base"):
        DiscreteLog(bytes(33), 10)


@pytest.mark.parametrize(("limit", "bits"), [(1, 12), (2**18, 12), (2**19, 13), (2**24, 18), (MAX_LIMIT, 18)])
def test_size_follows_the_range(base, monkeypatch, limit, bits):
    monkeypatch.setattr(dlog, "_table", lambda base, size, directory: (None, None))
    assert DiscreteLog(base, limit).size == 1 << bits


# ---------------------------------------------------------------------- never a wrong number
def test_keys_that_are_shared_or_lie_are_checked_against_the_whole_point(base, tmp_path):
    solver = DiscreteLog(base, LIMIT, tmp_path)
    numbers = [-SIZE, -300, -5, 1, 5, 300, SIZE]
    rng = np.random.default_rng(1)
    solver._indices = rng.permutation(solver._indices)  # every key now names another multiple
    found = solver.solve(powers(base, numbers), SIZE)
    assert all(value in (None, number) for value, number in zip(found, numbers, strict=True))
    solver._indices = np.full(SIZE, 2**32 - 1, np.uint32)  # beyond the table
    assert solver.solve(powers(base, numbers), SIZE) == [None] * len(numbers)
    solver._indices = np.zeros(SIZE, np.uint32)
    assert solver.solve(powers(base, numbers), SIZE) == [None] * len(numbers)


def test_two_multiples_with_one_key_are_told_apart(base, monkeypatch):
    # Four bits of x: every key is shared by some 256 multiples.
    monkeypatch.setattr(dlog, "_keys_of", lambda data, full=dlog._keys_of: full(data) >> np.uint64(60))
    solver = DiscreteLog(base, SIZE)
    numbers = [-SIZE, -700, -1, 0, 1, 2, 3, 1000, SIZE, SIZE + 1]
    assert solver.solve(powers(base, numbers)) == [*numbers[:-1], None]


# ---------------------------------------------------------------------- the table on disk
@pytest.fixture
def saved(base, solver, directory, tmp_path):
    """A copy of the table's file in an empty directory."""
    (path,) = directory.iterdir()
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    copy.chmod(0o600)
    return copy


@pytest.fixture
def built(monkeypatch):
    """Count tables that are made; each takes an argsort."""
    calls = []
    real = np.argsort
    monkeypatch.setattr(np, "argsort", lambda *args, **options: calls.append(1) or real(*args, **options))
    return calls


def test_table_is_kept_and_used_again(base, built, tmp_path):
    numbers = [-LIMIT, -1, 0, 77, LIMIT]
    for _ in range(3):
        assert DiscreteLog(base, LIMIT, tmp_path / "new").solve(powers(base, numbers)) == numbers
    assert len(built) == 1
    (path,) = (tmp_path / "new").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size == 12 + 33 + 8 + 32 + 12 * SIZE


def flip(at):
    def change(data):
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    return change


DAMAGE = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[:-1],
    "half": lambda data: data[: len(data) // 2],
    "longer": lambda data: data + b"\0",
    "another version": flip(10),
    "another base in the header": flip(20),
    "another size in the header": flip(12 + 33 + 7),
    "another hash": flip(12 + 33 + 8),
    "another key": flip(12 + 33 + 8 + 32),
    "another index": flip(-1 % (12 + 33 + 8 + 32 + 12 * SIZE)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_table_is_made_anew(base, saved, built, damage):
    whole = saved.read_bytes()
    saved.write_bytes(damage(whole))
    assert DiscreteLog(base, LIMIT, saved.parent).solve(powers(base, [-4242, 4096])) == [-4242, 4096]
    assert len(built) == 1
    assert saved.read_bytes() == whole
    assert [path.name for path in saved.parent.iterdir() if "dlog" in path.name] == [saved.name]


def test_undamaged_copy_is_used(base, saved, built):
    DiscreteLog(base, LIMIT, saved.parent)
    assert not built


def test_table_of_another_base_is_made_anew(saved, built):
    other = GroupKey.generate().public
    path = saved.parent
    DiscreteLog(other, LIMIT, path)
    (theirs,) = (p for p in path.iterdir() if "dlog" in p.name and p != saved)
    theirs.write_bytes(saved.read_bytes())  # whole, but not of this base
    assert DiscreteLog(other, LIMIT, path).solve(powers(other, [-5, 5])) == [-5, 5]
    assert len(built) == 2


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_table_that_others_could_change_is_made_anew(base, saved, built):
    saved.chmod(0o666)
    DiscreteLog(base, LIMIT, saved.parent)
    assert len(built) == 1
    assert saved.stat().st_mode & 0o777 == 0o600


def test_directory_that_takes_no_file_costs_time_only(base, tmp_path):
    (tmp_path / "file").write_text("not a directory")
    assert DiscreteLog(base, LIMIT, tmp_path / "file").solve(powers(base, [3])) == [3]


def test_directory_in_place_of_the_table(base, saved):
    saved.unlink()
    saved.mkdir()
    assert DiscreteLog(base, LIMIT, saved.parent).solve(powers(base, [3])) == [3]
    assert not [path for path in saved.parent.iterdir() if path.name.startswith(".")]


def test_without_a_directory_nothing_is_written(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert DiscreteLog(base, LIMIT).solve(powers(base, [3])) == [3]
    assert [p for p in Path(tmp_path).iterdir() if "dlog" in p.name] == []


def test_known_numbers_of_the_standard_base():
    # n·G as SEC 2 and "Test vectors for secp256k1" (crypto.stackexchange.com/q/784) give them.
    known = {
        1: "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
        2: "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5",
        20: "024ce119c96e2fa357200b559b2f7dd5a5f02d5290aff74b03f3e471b273211c97",
    }
    points = [parse_point(bytes.fromhex(point), "n·G") for point in known.values()]
    assert DiscreteLog(bytes.fromhex(known[1]), 1000).solve(points) == list(known)


def test_scalars_near_the_order_are_small_negative_numbers(solver, base):
    point = parse_point(base, "base").multiply(encode_scalar(-12345))
    assert solver.solve([point]) == [-12345]
