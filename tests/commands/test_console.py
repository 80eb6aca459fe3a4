import pytest

from flbc.commands import console
from flbc.errors import ConfigError

EVIL = "[red]a[/red] [/] \x1b[2J\x1b]0;title\x07 \u202ereversed\x85 é ε"


def test_what_others_wrote_is_printed_as_it_is(capsys):
    table = console.table_of(EVIL, "name")
    table.add_row(console.plain(EVIL))
    console.show(table, console.facts([("link", EVIL)]))
    console.say(EVIL, "yellow")
    console.complain(EVIL)
    with console.waiting(EVIL):
        pass
    out, err = capsys.readouterr()
    shown = r"[red]a[/red] [/] \x1b[2J\x1b]0;title\x07 \u202ereversed\x85 é ε"
    assert out.count(shown) == 3
    assert err.splitlines() == [shown, f"error: {shown}", f"{shown} ..."]


def test_lines_to_standard_error_are_not_wrapped(capsys):
    console.say("word " * 100)
    assert capsys.readouterr().err.count("\n") == 1


def test_tables_in_a_pipe_are_wide(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    table = console.table_of("", "one", "two")
    table.add_row("x" * 66, "y" * 66)
    console.show(table)
    assert f"{'x' * 66}  {'y' * 66}" in capsys.readouterr().out


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(ConfigError, match=r"Cannot read the evidence .*none: No such file"):
        console.read(tmp_path / "none", "evidence", 10)
    (tmp_path / "long").write_bytes(b"x" * 11)
    with pytest.raises(ConfigError, match="larger than 10 bytes: it is no evidence"):
        console.read(tmp_path / "long", "evidence", 10)
    with pytest.raises(ConfigError, match=r"Cannot write .*long/er"):
        console.write(tmp_path / "long" / "er", b"")
    console.write(tmp_path / "new" / "file", b"yes")
    assert console.read(tmp_path / "new" / "file", "evidence", 10) == b"yes"
