"""``flbc keys deal`` and ``accept``: shares of a key that nobody holds, each readable by its holder alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flbc.cli import app
from flbc.crypto import keystore
from flbc.crypto.keystore import PartyKeys
from flbc.crypto.paillier import Encryptor
from flbc.crypto.paillier_keys import generate
from flbc.crypto.paillier_threshold import combine, deal
from flbc.crypto.sharefile import load_share, save_share
from flbc.errors import ConfigError, KeyFileError
from flbc.node.pins import Pins
from flbc.node.rosterfile import Entry, default_schemes, write_roster

NAMES = ("cleveland", "hungary", "zurich")


@pytest.fixture
def parties(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Public parts of three holders, in the folder that the test runs in."""
    monkeypatch.setenv("FLBC_KEY_PASSWORD", "correct horse")
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        keys = PartyKeys.generate(name)
        keystore.save(Path(f"{name}.key"), keys, "correct horse")
        Path(f"{name}.public.json").write_text(json.dumps(keys.public()), "utf-8")
    return [Path(f"{name}.public.json") for name in NAMES]


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_deal_accept_and_open(parties: list[Path]) -> None:
    told = run("keys", "deal", *parties, "--bits", 2048)  # the majority, 2 of 3
    fingerprint = json.loads(told[told.index("{") :])["fingerprint"]
    shares = []
    for name in NAMES:
        run(
            "keys",
            "accept",
            f"{name}.key",
            f"{name}.share",
            "--fingerprint",
            fingerprint,
            "--out",
            f"{name}.shared.key",
        )
        share = keystore.load(Path(f"{name}.shared.key"), "correct horse").share
        assert share is not None
        shares.append(share)
    key = shares[0].key
    assert (key.threshold, key.holders) == (2, 3)
    assert {s.key.fingerprint.hex() for s in shares} == {fingerprint}
    ciphertexts = Encryptor(key.public).encrypt([5, 7])
    assert combine(key, {s.place: s.partial(ciphertexts) for s in shares[1:]})[0] == [5, 7]
    # The roster pins the key for every holder.
    Path("zurich.public.json").write_text(json.dumps(keystore.read_public(Path("zurich.shared.key"))), "utf-8")
    write_roster(
        Path("roster.toml"), [Entry.parse("zurich.public.json:committee")], {"schemes": ["paillier-threshold"]}
    )
    pinned = Pins.load(Path("roster.toml")).parties
    assert pinned is not None
    assert pinned["zurich"].scheme_key.hex() == fingerprint


def test_a_share_that_the_dealer_did_not_make_is_refused(parties: list[Path]) -> None:
    """Weak form: it opens with the holder's key, because everybody can seal a box. The dealer's fingerprint differs."""
    told = run("keys", "deal", *parties, "--bits", 2048)
    dealt = json.loads(told[told.index("{") :])["fingerprint"]
    keys = keystore.load(Path("zurich.key"), "correct horse")
    forged = deal(generate(2048), 2, 3)[2]
    save_share(Path("forged.share"), forged, "zurich", keys.encryption.public)
    assert load_share(Path("forged.share"), keys).key.fingerprint == forged.key.fingerprint
    with pytest.raises(KeyFileError, match=r"not the one given with --fingerprint: ask the dealer"):
        run("keys", "accept", "zurich.key", "forged.share", "--fingerprint", dealt, "--out", "x.key")
    assert not Path("x.key").exists()
    result = CliRunner().invoke(app, ["keys", "accept", "zurich.key", "zurich.share", "--out", "x.key"])
    assert result.exit_code == 2  # the fingerprint is not optional
    run("keys", "accept", "zurich.key", "zurich.share", "--fingerprint", dealt.upper(), "--out", "x.key")


def test_a_roster_without_scheme_accepts_no_less_than_the_keys_were_made_for(tmp_path: Path) -> None:
    """A forgotten --scheme would let server and authority start a task that the authority opens alone."""
    bare = PartyKeys.generate("a").public()
    share = {"bits": 2048, "threshold": 2, "holders": 3, "fingerprint": "00" * 32, "place": 1}
    key = {"bits": 2048, "fingerprint": "11" * 32}

    def entry(public: dict[str, object], role: str) -> Entry:
        return Entry(public, (role,), 0)

    holder, owner = entry({**bare, "share": share}, "committee"), entry({**bare, "paillier": key}, "authority")
    generator, hospital = entry(bare, "generator"), entry(bare, "hospital")
    assert default_schemes([hospital, owner]) == ["paillier"]
    assert default_schemes([hospital, owner, generator]) == ["paillier-split"]
    assert default_schemes([hospital, generator]) == ["paillier"]  # NddFe: --scheme nddfe
    assert default_schemes([hospital, holder, generator, owner]) == ["paillier-threshold"]


def test_the_written_policy_refuses_the_authority_alone(parties: list[Path]) -> None:
    keys = PartyKeys.generate("owner", paillier_bits=2048)
    Path("owner.json").write_text(json.dumps(keys.public()), "utf-8")
    told = run("roster", f"{parties[0]}:hospital", "owner.json:authority", f"{parties[1]}:generator", "--out", "r.toml")
    assert "accepted schemes: paillier-split" in told
    assert Pins.load(Path("r.toml")).policy.schemes == ("paillier-split",)
    run("roster", f"{parties[0]}:hospital", "owner.json:authority", "--scheme", "paillier", "--out", "s.toml")
    assert Pins.load(Path("s.toml")).policy.schemes == ("paillier",)


def test_more_shares_than_holders(parties: list[Path]) -> None:
    with pytest.raises(ConfigError, match=r"threshold = 4 is more than the 3 holders.*--threshold"):
        run("keys", "deal", *parties, "--threshold", 4)
    with pytest.raises(ConfigError, match="threshold = 1 would let one holder open everything"):
        run("keys", "deal", *parties, "--threshold", 1)


def test_one_holder_twice_and_a_taken_name(parties: list[Path]) -> None:
    with pytest.raises(KeyFileError, match="the same name or encryption key"):
        run("keys", "deal", parties[0], parties[0])
    Path("hungary.share").write_text("x")
    with pytest.raises(KeyFileError, match=r"hungary\.share exists"):
        run("keys", "deal", *parties)
    with pytest.raises(KeyFileError, match=r"make it with `flbc keys show"):
        run("keys", "deal", *parties[:2], "nothing.json")


def test_a_key_file_is_not_overwritten(parties: list[Path]) -> None:
    with pytest.raises(KeyFileError, match=r"zurich\.key exists"):
        run("keys", "accept", "zurich.key", "zurich.share", "--fingerprint", "00", "--out", "zurich.key")
