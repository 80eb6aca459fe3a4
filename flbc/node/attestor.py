"""Who vouches for the compute time that a submission states (Sun & Zhao 2025, section 3.2, step 3)."""

from __future__ import annotations

from typing import Protocol


class Attestor(Protocol):
    """Turns a measured training time into the one that is signed.

    The paper has it measured inside an SGX enclave. A hardware attestor would return a quote to be bound by the
    submission; none exists yet, and the record says so: ``kind`` is part of a task's terms and of every audit.
    """

    kind: str

    def attest(self, elapsed_ms: int) -> int:
        """Return the time to sign in milliseconds; coarse, because it is outside epsilon."""
        ...


class SoftwareAttestor:
    """The node's own clock, rounded up to seconds. A dishonest node can state any time."""

    kind = "software, not hardware"

    def attest(self, elapsed_ms: int) -> int:
        """Round up to whole seconds."""
        return -(-elapsed_ms // 1000) * 1000
