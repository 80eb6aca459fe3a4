from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flbc.crypto import paillier
from tests.support.parties import Consortium


@pytest.fixture
def consortium(tmp_path: Path, opening_key: paillier.PrivateKey) -> Callable[..., Consortium]:
    """Return a function that sets up four hospitals and an authority."""

    def make(**options: Any) -> Consortium:
        return Consortium.make(tmp_path / "nodes", opening_key, **options)

    return make
