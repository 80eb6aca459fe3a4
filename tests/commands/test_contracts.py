from flbc.errors import LedgerError
from flbc.ledger import build
from tests.commands.conftest import fails, run


def test_build_shows_what_it_made(monkeypatch):
    shipped = {name: build.artifact(name) for name in build.CONTRACTS}
    monkeypatch.setattr(build, "build", lambda: shipped)
    result = run("contracts", "build")
    for name, content in shipped.items():
        (line,) = [line.split() for line in result.stdout.splitlines() if name in line]
        assert line == [
            name,
            content["compiler"],
            f"{len(content['deployedBytecode']) // 2 - 1:,}",
            content["sourceHash"],
        ]
    assert "compiling the contracts" in result.stderr
    assert "wrote flbc/ledger/artifacts" in result.stderr


def test_check_writes_nothing(monkeypatch):
    monkeypatch.setattr(build, "build", lambda: 1 / 0)
    monkeypatch.setattr(build, "check", lambda: None)
    assert "the shipped artifacts are those of the sources" in run("contracts", "build", "--check").stderr


def test_check_finds_a_difference(monkeypatch):
    def different():
        raise LedgerError("The artifact of TaskHub is not that of its sources")

    monkeypatch.setattr(build, "check", different)
    assert "not that of its sources" in fails("contracts", "build", "--check")


def test_without_a_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("FLBC_SOLC", str(tmp_path / "none"))
    assert "check FLBC_SOLC" in fails("contracts", "build")
