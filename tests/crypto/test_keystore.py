import json
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flbc.crypto import keystore
from flbc.crypto.keystore import PartyKeys, load, read_public, save
from flbc.crypto.paillier import Encryptor, PublicKey
from flbc.crypto.signing import SigningKey, parse_address
from flbc.errors import ConfigError, KeyFileError, WrongPasswordError

PASSWORD = "correct horse ü"


@pytest.fixture(scope="module")
def keys():
    return PartyKeys.generate("hospital-1")


@pytest.fixture
def path(tmp_path, keys):
    path = tmp_path / "hospital-1.key"
    save(path, keys, PASSWORD)
    return path


def rewrite(path, change):
    """Change the JSON of a key file in place."""
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


def test_round_trip(path, keys):
    loaded = load(path, PASSWORD)
    assert loaded.name == "hospital-1"
    assert loaded.signing.to_bytes() == keys.signing.to_bytes()
    assert loaded.encryption.to_bytes() == keys.encryption.to_bytes()
    assert loaded.vrf.to_bytes() == keys.vrf.to_bytes()
    assert loaded.paillier is None
    assert loaded.public() == keys.public() == read_public(path)


def test_round_trip_with_an_opening_key(tmp_path, key_2048):
    made = PartyKeys.generate("authority")
    keys = PartyKeys("authority", made.signing, made.encryption, made.vrf, key_2048)
    save(tmp_path / "k", keys, PASSWORD)
    loaded = load(tmp_path / "k", PASSWORD)
    assert loaded.paillier.decrypt(Encryptor(key_2048.public).encrypt([42])) == [42]
    shown = read_public(tmp_path / "k")["paillier"]
    assert PublicKey.from_bytes(bytes.fromhex(shown["public_key"])) == key_2048.public
    assert (shown["bits"], shown["fingerprint"]) == (2048, key_2048.public.fingerprint.hex())


def test_generate_makes_separate_keys_and_the_asked_paillier_key():
    keys = PartyKeys.generate("authority", paillier_bits=2048)
    assert keys.paillier.public.bits == 2048
    assert keys.signing.to_bytes() != keys.vrf.to_bytes()
    with pytest.raises(ConfigError, match="use 3072"):
        PartyKeys.generate("authority", paillier_bits=1024)


def test_public_part_names_the_keys(path, keys):
    shown = read_public(path)
    assert parse_address(shown["address"]) == keys.signing.address
    assert parse_address(shown["vrf_address"]) == keys.vrf.address
    assert bytes.fromhex(shown["vrf"]) == keys.vrf.public
    assert bytes.fromhex(shown["encryption"]) == keys.encryption.public


def test_file_holds_no_secret_in_clear(path, keys):
    data = path.read_bytes()
    for secret in (keys.signing.to_bytes(), keys.encryption.to_bytes(), keys.vrf.to_bytes(), PASSWORD.encode()):
        assert secret not in data
        assert secret.hex().encode() not in data


def test_two_files_share_no_salt_nonce_or_ciphertext(tmp_path, path, keys):
    save(tmp_path / "second", keys, PASSWORD)
    first, second = (json.loads(p.read_text("utf-8")) for p in (path, tmp_path / "second"))
    assert first["kdf"]["salt"] != second["kdf"]["salt"]
    assert first["cipher"]["nonce"] != second["cipher"]["nonce"]
    assert first["ciphertext"] != second["ciphertext"]


def test_mode_is_0600_whatever_the_umask_and_no_rest_remains(tmp_path, keys):
    before = os.umask(0)
    try:
        save(tmp_path / "k", keys, PASSWORD)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["k"]


def test_never_overwrites(path, keys):
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="is not overwritten"):
        save(path, keys, "other")
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_does_not_write_through_a_dangling_link(tmp_path, keys):
    (tmp_path / "k").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFileError, match="is not overwritten"):
        save(tmp_path / "k", keys, PASSWORD)
    assert not (tmp_path / "elsewhere").exists()


def test_failed_write_leaves_nothing(tmp_path, keys, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeyFileError, match="No space left"):
        save(tmp_path / "k", keys, PASSWORD)
    assert list(tmp_path.iterdir()) == []


def test_missing_directory_is_named(tmp_path, keys):
    with pytest.raises(KeyFileError, match="No such file"):
        save(tmp_path / "no" / "k", keys, PASSWORD)
    with pytest.raises(KeyFileError, match="No such file"):
        load(tmp_path / "no" / "k", PASSWORD)


def test_wrong_password(path):
    for password in (PASSWORD + " ", PASSWORD.upper(), "x"):
        with pytest.raises(WrongPasswordError, match="the password is wrong or the file was changed") as caught:
            load(path, password)
        assert password not in str(caught.value).replace("x", "") or password == "x"


def test_composed_and_decomposed_passwords_are_one(path):
    load(path, "correct horse u\u0308")


def test_unusable_passwords(tmp_path, path, keys):
    for call in (lambda password: save(tmp_path / "k", keys, password), lambda password: load(path, password)):
        with pytest.raises(KeyFileError, match="empty"):
            call("")
        with pytest.raises(KeyFileError, match="not valid Unicode") as caught:
            call("secret\ud800")
        assert "secret" not in str(caught.value)
        assert caught.value.__suppress_context__
        with pytest.raises(TypeError, match="must be text"):
            call(b"bytes")
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["public"].update(name="hospital-2"),
        lambda c: c["public"].update(address="0x" + "00" * 20),
        lambda c: c["public"].update(extra=1),
        lambda c: c["public"].pop("vrf"),
        lambda c: c["kdf"].update(n=1 << 16),
        lambda c: c["kdf"].update(salt="00" * 16),
        lambda c: c["cipher"].update(nonce="00" * 12),
        lambda c: c.update(ciphertext=c["ciphertext"][:-2]),
        lambda c: c.update(ciphertext="00" + c["ciphertext"][2:] if c["ciphertext"][:2] != "00" else "ff"),
        lambda c: c.update(ciphertext=""),
    ],
)
def test_any_change_keeps_it_shut(path, change):
    rewrite(path, change)
    with pytest.raises(WrongPasswordError):
        load(path, PASSWORD)


@pytest.mark.parametrize("version", [0, 2, "1", None, True])
def test_other_versions_are_refused_clearly(path, version):
    rewrite(path, lambda c: c.update(version=version))
    for call in (lambda: load(path, PASSWORD), lambda: read_public(path)):
        with pytest.raises(KeyFileError, match="another version than 1"):
            call()


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("kdf"),
        lambda c: c.update(more=1),
        lambda c: c.update(public=[]),
        lambda c: c["kdf"].update(name="pbkdf2"),
        lambda c: c["kdf"].update(n=1 << 40),
        lambda c: c["kdf"].update(n=1 << 10),
        lambda c: c["kdf"].update(n=(1 << 15) + 1),
        lambda c: c["kdf"].update(n=32768.0),
        lambda c: c["kdf"].update(r=1 << 20),
        lambda c: c["kdf"].update(p=True),
        lambda c: c["kdf"].update(p=1000),
        lambda c: c["kdf"].update(salt="00"),
        lambda c: c["kdf"].update(salt="zz" * 16),
        lambda c: c.update(kdf=None),
        lambda c: c["cipher"].update(name="AES-128-GCM"),
        lambda c: c["cipher"].update(nonce=5),
        lambda c: c.update(cipher="AES-256-GCM"),
        lambda c: c.update(ciphertext=None),
        lambda c: c.update(ciphertext="0g"),
    ],
)
def test_damaged_files_are_refused_before_any_work(path, change, monkeypatch):
    rewrite(path, change)

    def no_work(*args, **kwargs):
        raise AssertionError("scrypt was called with settings from a damaged file")

    monkeypatch.setattr(keystore, "Scrypt", no_work)
    with pytest.raises(KeyFileError, match="is damaged"):
        load(path, PASSWORD)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o777])
def test_files_open_to_others_are_refused(path, mode):
    path.chmod(mode)
    for call in (lambda: load(path, PASSWORD), lambda: read_public(path)):
        with pytest.raises(KeyFileError, match=f"run `chmod 600 {path}`"):
            call()
    path.chmod(0o600)
    load(path, PASSWORD)


def test_what_is_no_regular_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "dir").mkdir(0o700)
    for name in ("pipe", "dir"):
        with pytest.raises(KeyFileError, match="not a regular file"):
            load(tmp_path / name, PASSWORD)


def test_huge_files_are_not_read(tmp_path):
    file = tmp_path / "k"
    file.write_bytes(b" " * (1 << 17))
    file.chmod(0o600)
    with pytest.raises(KeyFileError, match="too large"):
        load(file, PASSWORD)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
almost_files = st.fixed_dictionaries(
    {"format": st.just("flbc-keys"), "version": st.just(1) | json_values},
    optional=dict.fromkeys(("public", "kdf", "cipher", "ciphertext"), json_values),
)


@given(st.binary(max_size=200) | (json_values | almost_files).map(lambda value: json.dumps(value).encode()))
def test_garbage_is_a_key_file_error(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("garbage") / "k"
    file.touch(0o600)
    file.write_bytes(data)
    with pytest.raises(KeyFileError):
        load(file, PASSWORD)


def test_deeply_nested_json_is_a_key_file_error(tmp_path):
    file = tmp_path / "k"
    file.touch(0o600)
    file.write_bytes(b"[" * 60_000)
    with pytest.raises(KeyFileError, match="no flbc key file"):
        load(file, PASSWORD)


@pytest.mark.parametrize(
    "secrets",
    [
        b"not json",
        b"[]",
        b"{}",
        b'{"signing": 1, "encryption": 1, "vrf": 1, "paillier": null}',
        json.dumps({"signing": "00" * 32, "encryption": "01" * 32, "vrf": "01" * 32, "paillier": None}).encode(),
        json.dumps({"signing": "01" * 32, "encryption": "01" * 32, "vrf": "01" * 32, "paillier": None}).encode(),
        json.dumps({"signing": "01" * 32, "encryption": "01" * 32, "vrf": "01" * 32, "paillier": "00"}).encode(),
    ],
)
def test_sealed_nonsense_is_refused_without_detail(tmp_path, keys, monkeypatch, secrets):
    # Sealed with the right password, but not what the header says.
    real = keystore._canonical
    monkeypatch.setattr(keystore, "_canonical", lambda value: secrets if "signing" in value else real(value))
    save(tmp_path / "k", keys, PASSWORD)
    with pytest.raises(KeyFileError, match="keys are not sound") as caught:
        load(tmp_path / "k", PASSWORD)
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 65, "\x1b[31m", None, 7])
def test_names_must_be_printable(name):
    with pytest.raises(ConfigError, match="printable"):
        PartyKeys.generate(name)


def test_party_keys_check_their_types(keys):
    with pytest.raises(TypeError, match="signing must be a SigningKey"):
        PartyKeys("a", keys.encryption, keys.encryption, keys.vrf, None)
    with pytest.raises(TypeError, match="paillier must be"):
        PartyKeys("a", keys.signing, keys.encryption, SigningKey.generate(), b"key")
    with pytest.raises(TypeError, match="keys must be PartyKeys"):
        save("nowhere", keys.signing, PASSWORD)
