import pytest

from flbc.crypto import keystore
from flbc.crypto.keystore import PartyKeys
from flbc.errors import ConfigError, KeyFileError, WrongPasswordError
from flbc.node.identity import (
    Identity,
    development_identity,
    development_name,
    key_password,
    load_identity,
    parse_roles,
)
from flbc.roster import Party

PASSWORD = "correct horse battery"


@pytest.fixture
def keys():
    return PartyKeys.generate("cleveland")


@pytest.fixture
def key_file(tmp_path, keys):
    path = tmp_path / "cleveland.key"
    keystore.save(path, keys, PASSWORD)
    return str(path)


@pytest.fixture
def password(monkeypatch):
    monkeypatch.setenv("FLBC_KEY_PASSWORD", PASSWORD)


# ---------------------------------------------------------------------- development identities (S2)
def test_development_identity_is_deterministic():
    first = development_identity(7)
    development_identity.cache_clear()
    assert development_identity(7).party() == first.party()
    assert development_identity(7) is not first


def test_development_identity_known_answer():
    # Computed from RFC 5869 with hmac and hashlib alone. It must not change: all nodes of a simulation derive it.
    party = development_identity(0).party()
    assert (party.address.hex(), party.encryption.hex()) == (
        "81dc475cc4904f7ba279ffeb6d1215166866c55f",
        "64505406680633d6eab96adb3eb7f28e4c3625b27fde16bfe6e6a4c68fd39924",
    )


def test_development_identities_share_no_secret():
    secrets = [
        secret.to_bytes()
        for partition in range(20)
        for keys in [development_identity(partition).keys]
        for secret in (keys.signing, keys.encryption, keys.vrf)
    ]
    assert len(set(secrets)) == 60


def test_roles_do_not_change_development_keys():
    hospital, authority = development_identity(2), development_identity(2, ("authority",))
    assert (hospital.roles, authority.roles) == (("hospital",), ("authority",))
    assert hospital.party().address == authority.party().address
    assert hospital.simulation
    assert authority.keys.paillier is None


def test_development_name():
    assert development_identity(12).name == development_name(12) == "node-12"


def test_party_holds_the_public_part():
    me = development_identity(1, ("authority",), examples=9)
    assert me.party(b"\x01" * 32) == Party(
        "node-1",
        ("authority",),
        me.keys.signing.address,
        me.keys.encryption.public,
        b"\x01" * 32,
        9,
        me.keys.vrf.address,
    )


def test_repr_shows_no_keys(keys):
    text = repr(Identity("cleveland", ("hospital",), keys, simulation=False))
    assert "cleveland" in text
    assert "keys" not in text


# ---------------------------------------------------------------------- key files
def test_load_identity(key_file, keys, password):
    me = load_identity({"flbc-key": key_file})
    assert me.party() == Party(
        "cleveland", ("hospital",), keys.signing.address, keys.encryption.public, vrf=keys.vrf.address
    )
    assert not me.simulation
    assert me.keys.signing.to_bytes() == keys.signing.to_bytes()


def test_roles_come_from_the_node_config(key_file, password):
    me = load_identity({"flbc-key": key_file, "flbc-role": "hospital, committee"})
    assert me.roles == ("committee", "hospital")


@pytest.mark.parametrize("config", [{}, {"flbc-key": True}, {"flbc-key": 3}, {"flbc-dev": True}])
def test_missing_key_says_the_exact_flag(config, password):
    with pytest.raises(ConfigError) as error:
        load_identity(config)
    text = str(error.value)
    assert "flbc keys new NAME" in text
    assert """--node-config 'flbc-key="/path/NAME.key" flbc-roster="/path/roster.toml" flbc-role="hospital"'""" in text
    assert "flbc-dev=true" in text


def test_missing_password(key_file):
    with pytest.raises(KeyFileError, match="set FLBC_KEY_PASSWORD, or flbc-key-password-file in --node-config"):
        load_identity({"flbc-key": key_file})


def test_wrong_password(key_file, monkeypatch):
    monkeypatch.setenv("FLBC_KEY_PASSWORD", "wrong")
    with pytest.raises(WrongPasswordError, match="the password is wrong or the file was changed") as error:
        load_identity({"flbc-key": key_file})
    assert "wrong or" in str(error.value)
    assert PASSWORD not in str(error.value)


def test_missing_key_file(tmp_path, password):
    with pytest.raises(KeyFileError, match=r"cannot read the key file .*none.key"):
        load_identity({"flbc-key": str(tmp_path / "none.key")})


def test_unknown_role(key_file, password):
    with pytest.raises(
        ConfigError, match="Unknown role 'nurse' in flbc-role; choose from hospital, committee, authority"
    ):
        load_identity({"flbc-key": key_file, "flbc-role": "hospital,nurse"})


@pytest.mark.parametrize(
    ("value", "roles"),
    [
        ("hospital", ("hospital",)),
        ("hospital,committee", ("committee", "hospital")),
        (" authority ,authority", ("authority",)),
    ],
)
def test_parse_roles(value, roles):
    assert parse_roles(value) == roles


@pytest.mark.parametrize("value", ["", "hospital,", "Hospital", "hospital committee", True, None])
def test_parse_malformed_roles(value):
    with pytest.raises(ConfigError, match="Unknown role"):
        parse_roles(value)


# ---------------------------------------------------------------------- passwords
@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_password_file(tmp_path, ending):
    path = tmp_path / "password"
    path.write_bytes(("  pass wörd  " + ending).encode())
    path.chmod(0o600)
    assert key_password({"flbc-key-password-file": str(path)}) == "  pass wörd  "


def test_password_file_comes_before_the_environment(tmp_path, password):
    path = tmp_path / "password"
    path.write_text("from the file")
    path.chmod(0o600)
    assert key_password({"flbc-key-password-file": str(path)}) == "from the file"
    assert key_password({}) == PASSWORD


def test_password_file_that_cannot_be_read(tmp_path):
    with pytest.raises(KeyFileError, match=r"cannot read the password file .*none"):
        key_password({"flbc-key-password-file": str(tmp_path / "none")})


def test_password_file_that_is_not_text(tmp_path):
    path = tmp_path / "password"
    path.write_bytes(b"\xff\xfesecret")
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="Cannot read the password file") as error:
        key_password({"flbc-key-password-file": str(path)})
    assert "xff" not in str(error.value)


def test_password_file_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "password"
    path.write_text("secret")
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600") as error:
        key_password({"flbc-key-password-file": str(path)})
    assert "secret" not in str(error.value)
