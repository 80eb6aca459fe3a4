"""Secrets stay where they are: not in repr, str, format, pickles or copies; and importing stays light."""

import copy
import pickle
import subprocess
import sys

import pytest

from flbc.crypto.keystore import PartyKeys
from flbc.crypto.keystream import EncryptionKey
from flbc.crypto.paillier import Encryptor
from flbc.crypto.signing import SigningKey, checksum_address


@pytest.fixture(scope="module")
def holders(key):
    signing, encryption = SigningKey.generate(), EncryptionKey.generate()
    party = PartyKeys("clinic", signing, encryption, SigningKey.generate(), key)
    encryptor = Encryptor(key.public)
    encryptor.precompute(1)
    p, q = key.primes()
    number = int.from_bytes
    return [
        (signing, [number(signing.to_bytes(), "big")]),
        (encryption, [number(encryption.to_bytes(), "big")]),
        (key, [p, q]),
        (key._half_p, [p, q]),
        (encryptor, [int(encryptor._pool[0])]),
        (party, [number(signing.to_bytes(), "big"), number(encryption.to_bytes(), "big"), p, q]),
    ]


def test_text_forms_hold_no_secret(holders):
    for holder, secrets in holders:
        texts = [repr(holder), str(holder), f"{holder}", repr([holder]), repr({"key": holder})]
        for secret in secrets:
            forms = {
                str(secret),
                f"{secret:x}",
                f"{secret:X}",
                repr(secret.to_bytes((secret.bit_length() + 7) // 8, "big")),
            }
            assert not any(form in text for form in forms for text in texts)


def test_text_forms_say_whose_key_it_is(holders):
    signing, encryption, paillier_key, *_, party = (holder for holder, _ in holders)
    assert checksum_address(signing.address) in repr(signing)
    assert encryption.public.hex() in repr(encryption)
    assert "1024 bits" in repr(paillier_key)
    assert "clinic" in repr(party)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_secrets_are_never_pickled(holders, protocol):
    for holder, _ in holders:
        with pytest.raises(TypeError, match="holds a secret and is never pickled"):
            pickle.dumps(holder, protocol)
        with pytest.raises(TypeError, match="holds a secret and is never pickled"):
            pickle.dumps({"nested": [holder]}, protocol)


def test_secrets_are_never_copied_or_dumped(holders):
    for holder, _ in holders:
        for escape in (copy.copy, copy.deepcopy, lambda h: h.__getstate__(), lambda h: h.__reduce__()):
            with pytest.raises(TypeError, match="holds a secret"):
                escape(holder)
        assert not hasattr(holder, "__dict__")


def test_public_keys_may_travel(key):
    assert pickle.loads(pickle.dumps(key.public)) == key.public  # noqa: S301


def test_importing_is_light():
    modules = "signing eip712 keystream packing paillier phe_interop keystore shamir boxes"
    code = f"""
import sys
for name in "{modules}".split():
    __import__("flbc.crypto." + name)
heavy = {{"scipy", "torch", "opacus", "web3", "eth_account", "flwr", "phe", "pandas"}} & set(sys.modules)
sys.exit(f"imported {{heavy}}" if heavy else 0)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
