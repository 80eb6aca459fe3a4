import json
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flbc import cli
from flbc.commands import keyfiles
from flbc.crypto import keystore, paillier
from flbc.crypto.keystore import PartyKeys
from flbc.crypto.signing import checksum_address
from flbc.errors import ConfigError, KeyFileError, PolicyError, RevertedError, RosterError
from flbc.ledger.deployment import Deployment
from flbc.node.pins import Pins
from flbc.node.rosterfile import Entry

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLBC_KEY_PASSWORD", PASSWORD)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def run(*arguments):
    """Run a command that must succeed."""
    result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def refused(error, match, *arguments):
    with pytest.raises(error, match=match):
        CliRunner().invoke(cli.app, arguments, catch_exceptions=False)


@pytest.fixture(scope="session")
def made(tmp_path_factory, opening_key):
    """Keys of three hospitals and an authority, and a folder with their key files."""
    files = tmp_path_factory.mktemp("made")
    fresh = PartyKeys.generate("authority")
    keys = {name: PartyKeys.generate(name) for name in ("cleveland", "hungary", "zurich")}
    keys["authority"] = PartyKeys("authority", fresh.signing, fresh.encryption, fresh.vrf, opening_key)
    for name, party in keys.items():
        keystore.save(files / f"{name}.key", party, PASSWORD)
    return files, keys


@pytest.fixture
def parties(folder, made):
    """Put key files and what `flbc keys show` prints of them into the folder."""
    files, keys = made
    for name in keys:
        shutil.copy2(files / f"{name}.key", folder)
        (folder / f"{name}.json").write_text(run("keys", "show", f"{name}.key").stdout)
    return keys


# ---------------------------------------------------------------------- keys
def test_new_key_file(folder):
    result = run("keys", "new", "cleveland")
    path = folder / "cleveland.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    keys = keystore.load(path, PASSWORD)
    assert keys.name == "cleveland"
    assert keys.paillier is None
    assert json.loads(result.stdout) == keys.public()
    assert "wrote cleveland.key (mode 0600)" in result.stderr
    assert PASSWORD not in result.output


def test_new_key_file_elsewhere_with_a_paillier_key(folder, opening_key, monkeypatch):
    asked = []
    monkeypatch.setattr(paillier, "generate", lambda bits, **kind: asked.append((bits, kind)) or opening_key)
    monkeypatch.setattr("flbc.crypto.paillier_keys.generate", paillier.generate)
    run("keys", "new", "authority", "--paillier-bits", "3072", "--out", "a.key")
    assert asked == [(3072, {"fast_opening": False})]
    assert keystore.load(folder / "a.key", PASSWORD).paillier.public == opening_key.public
    assert not (folder / "authority.key").exists()


def test_new_key_with_fast_opening(folder, monkeypatch):
    real = paillier.generate
    monkeypatch.setattr("flbc.crypto.paillier_keys.generate", lambda bits, **kind: real(2048, **kind))
    result = run("keys", "new", "authority", "--paillier-bits", "3072", "--fast-opening", "--out", "a.key")
    assert keystore.load(folder / "a.key", PASSWORD).paillier.fast_opening
    assert json.loads(result.stdout)["paillier"]["fast_opening"] is True
    assert json.loads(run("keys", "show", "a.key").stdout) == json.loads(result.stdout)
    # A roster takes the public part as it takes any other.
    (folder / "a.json").write_text(result.stdout)
    assert Entry.parse(f"{folder / 'a.json'}:authority").to_toml()["scheme-key"]


def test_fast_opening_without_a_size(folder):
    refused(ConfigError, "--fast-opening is a kind of Paillier key: add --paillier-bits 3072", "keys", "new", "a",
            "--fast-opening")  # fmt: skip
    assert not list(folder.rglob("*.key"))


def test_key_file_is_never_overwritten(folder):
    run("keys", "new", "cleveland")
    before = (folder / "cleveland.key").read_bytes()
    refused(KeyFileError, "never overwritten. Choose another --out", "keys", "new", "cleveland")
    assert (folder / "cleveland.key").read_bytes() == before


@pytest.mark.parametrize("name", ["St. Mary's", "a/b", "", "a" * 65])
def test_name_that_no_roster_takes_is_refused_at_once(folder, name):
    refused(RosterError, "name must be 1 to 64 ASCII letters, digits", "keys", "new", name)
    assert not list(folder.rglob("*.key"))


def test_key_size_that_is_not_secure(folder):
    refused(ConfigError, "2048, 3072, 4096 bits, not 1024: use 3072", "keys", "new", "a", "--paillier-bits", "1024")
    assert not list(folder.rglob("*.key"))


def test_new_key_without_a_password(folder, monkeypatch):
    monkeypatch.delenv("FLBC_KEY_PASSWORD")
    refused(ConfigError, "Nobody can type a password here; set FLBC_KEY_PASSWORD", "keys", "new", "cleveland")
    monkeypatch.setenv("FLBC_KEY_PASSWORD", "")
    refused(KeyFileError, "the password is empty: choose one", "keys", "new", "cleveland")
    assert not list(folder.rglob("*.key"))


@pytest.mark.parametrize(("typed", "works"), [(("one", "one"), True), (("one", "two"), False), (("", ""), False)])
def test_typed_password_is_asked_for_twice(monkeypatch, typed, works):
    answers = iter(typed)
    monkeypatch.delenv("FLBC_KEY_PASSWORD")
    monkeypatch.setattr(keyfiles.getpass, "getpass", lambda prompt: next(answers))
    monkeypatch.setattr(keyfiles.sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    if works:
        assert keyfiles.new_password() == "one"
    else:
        with pytest.raises(ConfigError, match="empty or differ; nothing was written"):
            keyfiles.new_password()


def test_password_of_a_key_file_is_asked_for(folder, parties, monkeypatch):
    asked = []
    monkeypatch.delenv("FLBC_KEY_PASSWORD")
    with pytest.raises(ConfigError, match="Nobody can type a password here; set FLBC_KEY_PASSWORD"):
        keyfiles.open_keys(folder / "zurich.key")
    monkeypatch.setattr(keyfiles.sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    monkeypatch.setattr(keyfiles.getpass, "getpass", lambda prompt: asked.append(prompt) or PASSWORD)
    assert keyfiles.open_keys(folder / "zurich.key").public() == parties["zurich"].public()
    with pytest.raises(KeyFileError, match="cannot read the key file"):
        keyfiles.open_keys(folder / "none.key")
    assert asked == [f"Password of {folder / 'zurich.key'}: "]


def test_show_prints_no_secret(folder, parties):
    for name, keys in parties.items():
        shown = run("keys", "show", f"{name}.key").stdout
        secrets = [keys.signing.to_bytes(), keys.encryption.to_bytes(), keys.vrf.to_bytes()]
        if keys.paillier is not None:
            secrets += [keys.paillier.to_bytes(), *(p.to_bytes(128, "big") for p in keys.paillier.primes())]
        assert json.loads(shown) == keys.public()
        assert not any(secret.hex() in shown.lower() or str(int.from_bytes(secret)) in shown for secret in secrets)


def test_show_needs_no_password(folder, parties, monkeypatch):
    monkeypatch.delenv("FLBC_KEY_PASSWORD")
    assert json.loads(run("keys", "show", "zurich.key").stdout)["name"] == "zurich"


def test_show_what_is_no_key_file(folder):
    refused(KeyFileError, "cannot read the key file none.key", "keys", "show", "none.key")
    (folder / "x.key").write_text("{}")
    (folder / "x.key").chmod(0o600)
    refused(KeyFileError, "no flbc key file: make one with `flbc keys new`", "keys", "show", "x.key")


# ---------------------------------------------------------------------- roster
ENTRIES = (
    "cleveland.json:hospital:244",
    "hungary.json:hospital",
    "zurich.json:hospital,committee:98",
    "authority.json:authority",
)


def test_roster_end_to_end(folder, parties):
    result = run("roster", *ENTRIES, "--max-epsilon", "1", "--max-clip-norm", "2.5", "--out", "pins.toml")
    pins = Pins.load(folder / "pins.toml")
    assert list(pins.parties) == ["authority", "cleveland", "hungary", "zurich"]
    for name, keys in parties.items():
        party = pins.parties[name]
        assert (party.address, party.encryption) == (keys.signing.address, keys.encryption.public)
        for shown in (checksum_address(party.address), party.encryption.hex(), party.scheme_key.hex()):
            assert shown in result.stdout, "in full: it is compared by telephone"
    assert pins.parties["authority"].scheme_key == parties["authority"].paillier.public.fingerprint
    assert pins.parties["cleveland"].scheme_key == b""
    assert pins.parties["zurich"].roles == ("committee", "hospital")
    assert [pins.examples(name) for name in pins.parties] == [0, 244, 0, 98]
    policy = pins.policy
    assert (policy.schemes, policy.min_key_bits, policy.min_survivors) == (("paillier",), 3072, 3)
    assert (policy.max_epsilon, policy.max_delta, policy.max_clip_norm) == (1, 1e-3, 2.5)


def test_roster_policy_options(folder, parties):
    run("roster", *ENTRIES, "--scheme", "paillier", "--scheme", "masked", "--min-key-bits", "2048",
        "--min-survivors", "4", "--min-noise-multiplier", "1.5", "--max-delta", "1e-6",
        "--min-threshold", "0.5", "--noise-by", "clients",
        "--max-total-epsilon", "10", "--reveal-metric", "accuracy")  # fmt: skip
    assert tomllib.loads((folder / "roster.toml").read_text())["policy"] == {
        "schemes": ["paillier", "masked"],
        "min-key-bits": 2048,
        "min-survivors": 4,
        "min-noise-multiplier": 1.5,
        "max-delta": 1e-6,
        "max-total-epsilon": 10.0,
        "reveal-metrics": ["accuracy"],
        "min-threshold": 0.5,
        "noise-by": "clients",
    }


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("cleveland.json", "must be FILE:ROLE"),
        ("cleveland.json:hospital:many", "must be FILE:ROLE"),
        ("cleveland.json:hospital:-3", "must be FILE:ROLE"),
        ("cleveland.json:hospital:²", "must be FILE:ROLE"),
        ("none.json:hospital", "Cannot read none.json; make it with `flbc keys show NAME.key > none.json`"),
        ("cleveland.key.gz:hospital", "Cannot read cleveland.key.gz"),
        ("list.json:hospital", "does not hold the public part of a key file"),
        ("empty.json:hospital", "lacks 'name'; make it with `flbc keys show`"),
        ("cleveland.json:nurse", "Unknown role 'nurse' in flbc-role; choose from hospital, committee, authority"),
        ("cleveland.json:", "Unknown role ''"),
    ],
)
def test_malformed_entry(folder, parties, entry, message):
    (folder / "list.json").write_text("[]")
    (folder / "empty.json").write_text("{}")
    (folder / "roster.toml").write_text("the roster in use")
    refused((RosterError, ConfigError), message, "roster", entry, "--force")
    assert (folder / "roster.toml").read_text() == "the roster in use"


def test_roster_for_one_deployment(folder, parties):
    made = Deployment(31337, b"\1" * 32, b"\xab" * 20, b"\2" * 20, b"\3" * 32, 1, b"\4" * 32, False)
    made.save(folder / "deployment.json")
    shown = run("roster", *ENTRIES, "--deployment", "deployment.json").stdout
    assert f"tasks on chain 31337, hub {checksum_address(made.hub)} only" in shown
    policy = Pins.load(folder / "roster.toml").policy
    policy.check_chain(31337, made.hub)
    with pytest.raises(PolicyError):
        policy.check_chain(31337, bytes(20))
    refused(
        ConfigError, "Cannot read the deployment none.json", "roster", *ENTRIES, "--deployment", "none.json", "--force"
    )


def test_existing_roster_is_replaced_only_with_force(folder, parties):
    run("roster", *ENTRIES)
    refused(RosterError, "exists; add --force to replace it", "roster", *ENTRIES)
    run("roster", *ENTRIES, "--force")


def test_roster_that_does_not_load_is_not_written(folder, parties):
    refused(RosterError, "different names", "roster", "zurich.json:hospital", "zurich.json:hospital")
    assert not (folder / "roster.toml").exists()
    refused(RosterError, "Cannot write the roster no/roster.toml", "roster", *ENTRIES, "--out", "no/roster.toml")


# ---------------------------------------------------------------------- the command as a program
def program(*arguments):
    command = [str(Path(sys.executable).parent / "flbc"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_program_shows_help():
    result = program("--help")
    assert result.returncode == 0
    assert all(word in result.stdout for word in ("keys", "roster", "demo"))


def test_program_prints_errors_without_a_traceback():
    result = program("keys", "show", "none.key")
    assert result.returncode == 1
    assert result.stderr == "error: cannot read the key file none.key: No such file or directory\n"
    assert result.stdout == ""


@pytest.mark.parametrize(
    "message",
    ["Unknown key 'x' in [policy]; known: [[party]]", "/home/[/red]/a [bold]key[/bold]", "long " * 100 + "end"],
)
def test_errors_are_printed_as_they_are(monkeypatch, capsys, message):
    def fail():
        raise ConfigError(message)

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    assert capsys.readouterr().err == f"error: {message}\n"


def test_refusals_of_contracts_come_with_a_cure(monkeypatch, capsys):
    def fail():
        raise RevertedError("NotPublisher", {"account": "0x12"})

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit):
        cli.main()
    told = (
        "The contract refused: NotPublisher(account = 0x12). Register the account for it: `flbc register --publisher`"
    )
    assert capsys.readouterr().err == f"error: {told}\n"


def test_other_exceptions_are_not_hidden(monkeypatch):
    def fail():
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_demo_exits_as_the_run_did(monkeypatch):
    monkeypatch.setattr("flbc.demo.run.run_demo", lambda: 3)
    assert CliRunner().invoke(cli.app, ["demo"]).exit_code == 3
