import pytest

from flbc.commands import finding
from flbc.errors import ConfigError, LedgerError

ONE, TWO, THREE = (bytes.fromhex(text.ljust(64, "0")) for text in ("ab01", "ab02", "cd"))


class Hub:
    address = bytes(20)

    def exists(self, task):
        return task in (ONE, TWO, THREE)


@pytest.fixture(autouse=True)
def three_tasks(monkeypatch):
    monkeypatch.setattr(finding, "all_tasks", lambda hub: [TWO, ONE, THREE])


@pytest.mark.parametrize(
    ("text", "task"),
    [("c", THREE), ("0xCD", THREE), ("ab01", ONE), ("AB02", TWO), (ONE.hex(), ONE), (f"0x{TWO.hex()}", TWO)],
)
def test_first_digits_stand_for_a_task(text, task):
    assert finding.find_task(Hub(), text) == task


def test_whole_id_needs_no_search(monkeypatch):
    monkeypatch.setattr(finding, "all_tasks", lambda hub: 1 / 0)
    assert finding.find_task(Hub(), ONE.hex()) == ONE


@pytest.mark.parametrize("text", ["a", "ab", "0xab0"])
def test_several_tasks(text):
    with pytest.raises(ConfigError, match=f"2 tasks begin with {text.removeprefix('0x')}: ab02[0-9]*, ab01[0-9]*$"):
        finding.find_task(Hub(), text)


@pytest.mark.parametrize("text", ["b", "ab03", "f" * 64])
def test_no_task(text):
    with pytest.raises(LedgerError, match=f"No task on this hub begins with {text}: `flbc task status` lists them all"):
        finding.find_task(Hub(), text)


@pytest.mark.parametrize("text", ["", "0x", "xyz", "a" * 65, "a b", "[red]", "a\n"])
def test_text_that_is_no_id(text):
    with pytest.raises(ConfigError, match="A task's id is 64 hex digits, or the first of them"):
        finding.find_task(Hub(), text)


def test_newest_task():
    assert finding.newest_task(Hub()) == THREE
