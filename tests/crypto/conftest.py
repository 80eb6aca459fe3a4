import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from flbc.crypto import paillier

# A busy machine must not turn a slow example into a failure; pytest-timeout bounds the tests.
settings.register_profile("crypto", deadline=None)
settings.load_profile("crypto")

VECTORS = Path(__file__).parent.parent / "vectors" / "crypto.json"


@pytest.fixture(scope="session")
def vectors() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(VECTORS.read_text("utf-8"))
    return content


@pytest.fixture(scope="session")
def key() -> paillier.PrivateKey:
    return paillier.generate(1024, insecure_key_bits_for_tests=True)


@pytest.fixture(scope="session")
def other_key() -> paillier.PrivateKey:
    return paillier.generate(1024, insecure_key_bits_for_tests=True)


@pytest.fixture(scope="session")
def key_2048() -> paillier.PrivateKey:
    return paillier.generate(2048)
