import pytest

from flbc.crypto import paillier
from flbc.crypto.keystream import EncryptionKey


@pytest.fixture(scope="session")
def private() -> paillier.PrivateKey:
    return paillier.generate(1024, insecure_key_bits_for_tests=True)


@pytest.fixture(scope="session")
def clients() -> list[EncryptionKey]:
    return [EncryptionKey.generate() for _ in range(5)]


@pytest.fixture(scope="session")
def authority() -> EncryptionKey:
    return EncryptionKey.generate()


@pytest.fixture(scope="session")
def generator() -> EncryptionKey:
    return EncryptionKey.generate()
