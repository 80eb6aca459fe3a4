import re

from flbc.commands import cures
from flbc.errors import ConfigError, RevertedError
from flbc.ledger.build import CONTRACTS, artifact


def test_cures_are_for_errors_that_the_contracts_have_and_name_only_their_arguments():
    known = {
        entry["name"]: {argument["name"] for argument in entry["inputs"]}
        for name in CONTRACTS
        for entry in artifact(name)["abi"]
        if entry["type"] == "error"
    }
    for name, cure in cures._CURES.items():
        assert set(re.findall(r"{(\w+)}", cure)) <= known[name], name


def test_times_are_written_as_times():
    error = RevertedError("StakeLocked", {"until": 1_900_000_000})
    assert cures.explain(error) == (
        "The contract refused: StakeLocked(until = 1900000000). A running task counts on the stake: withdraw it after "
        "2030-03-17 17:46:40 UTC"
    )


def test_other_errors_are_as_they_are():
    assert cures.explain(ConfigError("so")) == "so"
    assert cures.explain(RevertedError("0x1234", {}, "Why?")) == "The contract refused: 0x1234(). Why?"
    assert cures.explain(RevertedError("SignerTaken", {})) == "The contract refused: SignerTaken()"
