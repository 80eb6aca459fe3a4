"""The bundled app's run-config: what is read, what is refused, and that the shipped files fit it."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.common.config import flatten_dict

from flbc.demo.attacks import ATTACKS, malicious
from flbc.demo.checkable import CHECKABLE
from flbc.demo.datasets import DATASETS
from flbc.errors import ConfigError
from flbc.flower.app.server import STRATEGIES, Demo, strategy_of
from flbc.flower.app.settings import AppSettings
from flbc.flower.masked import Masked
from flbc.flower.nddfe import NddFe
from flbc.flower.paillier import Paillier
from flbc.flower.strategy import SecureStrategy
from flbc.flower.verified import Verified
from flbc.node.pins import Policy
from flbc.schemes.masking_graph import threshold
from flbc.verification.policy import Policy as VerifiedPolicy

ROOT = Path(__file__).parents[2]
APPS = sorted((ROOT / "strategies").glob("*/pyproject.toml"))
SCENARIOS = sorted((ROOT / "configs").glob("*.toml"))


def defaults(app: str = "paillier") -> dict[str, Any]:
    text = (ROOT / "strategies" / app / "pyproject.toml").read_text("utf-8")
    return flatten_dict(tomllib.loads(text)["tool"]["flwr"]["app"]["config"])


VERIFIED = defaults("verified")
STRATEGY_CLASSES = {"paillier": Paillier, "nddfe": NddFe, "masked": Masked}
#: Noise that the clients add, of whom one may work with the server.
SHARED = {"privacy_where": "clients", "min_survivors": 4}


def read(**overrides: Any) -> AppSettings:
    return AppSettings.read({**defaults(), **{key.replace("_", "-"): value for key, value in overrides.items()}})


def read_verified(**overrides: Any) -> AppSettings:
    return AppSettings.read({**VERIFIED, **{key.replace("_", "-"): value for key, value in overrides.items()}})


def test_the_demo_is_what_it_was() -> None:
    settings = read()
    assert settings.strategy == "paillier"
    assert settings.data is DATASETS["heart"]
    assert (settings.learning_rate, settings.local.batch_size, settings.local.epochs) == (1.0, 0, 1)
    assert settings.privacy is not None
    assert settings.privacy.learning_rate == settings.training.learning_rate == 1.0
    assert (settings.privacy.epsilon, settings.privacy.clip_norm, settings.rounds) == (1.0, 2.0, 30)


@pytest.mark.parametrize("app", APPS, ids=lambda path: path.parent.name)
def test_the_apps_own_config_is_accepted(app: Path) -> None:
    settings = AppSettings.read(defaults(app.parent.name))
    assert settings.strategy in STRATEGIES
    assert app.parent.name == settings.strategy


@pytest.mark.parametrize(
    ("app", "key"),
    [("paillier", key) for key in defaults()] + [("verified", key) for key in sorted(set(VERIFIED) - set(defaults()))],
)
def test_every_key_is_needed_and_its_type_checked(app: str, key: str) -> None:
    config = defaults(app)
    if app == "paillier":
        config["compression.rate"] = 0.5  # at 0 the others of its table are not read
    value = config.pop(key)
    with pytest.raises(ConfigError, match=re.escape(key)):
        AppSettings.read(config)
    with pytest.raises(ConfigError, match=f"{re.escape(key)} = .* must be of type {type(value).__name__}"):
        AppSettings.read({**config, key: [] if key != "ledger.url" else 1})


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.stem)
def test_every_scenario_fits_its_app(scenario: Path) -> None:
    text = scenario.read_text("utf-8")
    app = (re.findall(r"flwr run strategies/(\w+) ", text) or ["paillier"])[0]
    if not (ROOT / "strategies" / app).exists():
        pytest.skip(f"strategies/{app} does not exist yet")
    known, overrides = defaults(app), flatten_dict(tomllib.loads(text))
    assert set(overrides) <= set(known), "Flower refuses other keys without naming them"
    AppSettings.read({**known, **overrides})


@pytest.mark.parametrize(
    ("name", "unit", "rate", "batch", "epochs"),
    [
        ("heart", "none", 1.0, 0, 3),  # local-steps
        ("digits", "none", 0.05, 32, 2),
        ("digits", "example", 0.5, 32, 2),
        ("fashion", "client", 0.05, 32, 2),
        ("xray", "none", 1e-4, 2, 1),  # ESB-FL, section 7.1.2
    ],
)
def test_zero_means_the_data_sets_own(name: str, unit: str, rate: float, batch: int, epochs: int) -> None:
    settings = read(dataset=name, privacy_unit=unit, local_steps=3)
    assert (settings.learning_rate, settings.local.batch_size, settings.local.epochs) == (rate, batch, epochs)
    assert settings.local.learning_rate == rate
    assert settings.privacy is None or settings.privacy.learning_rate == rate


def test_what_is_set_holds() -> None:
    settings = read(dataset="digits", learning_rate=0.2, batch_size=8, local_epochs=5, data_dir="/data")
    assert (settings.local.learning_rate, settings.local.batch_size, settings.local.epochs) == (0.2, 8, 5)
    assert settings.data_dir == "/data"
    assert read(learning_rate=0.25).training.learning_rate == 0.25


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"dataset": "emnist"}, "choose one of heart, digits, fashion, mnist, cifar10, xray"),
        ({"learning_rate": -0.1}, "must not be negative"),
        ({"learning_rate": float("nan")}, "must not be negative"),
        ({"learning_rate": float("inf")}, "must not be negative"),
        ({"dataset": "digits", "batch_size": -1}, "must not be negative"),
        ({"dataset": "digits", "local_epochs": -1}, "must not be negative"),
        ({"batch_size": 32}, "'heart' is trained in full batches"),
        ({"local_epochs": 2}, "'heart' is trained in full batches"),
        ({"local_steps": 0}, "at least 1"),
        ({"fold": 5}, "must be 0 to 4"),
        ({"privacy_unit": "patient"}, "choose one of none, example, client"),
        ({"opening": "leader"}, "opening = 'leader' is unknown; choose one of authority, split, threshold"),
        ({"strategy": "nddfe", "opening": "split"}, "opening = 'split' needs strategy = \"paillier\""),
        (
            {"strategy": "masked", "privacy_where": "server"},
            "privacy-where = 'server' .* one of opener, clients",
        ),
        ({"strategy": "masked", "privacy_colluders": 2}, 'privacy-colluders = 2 belongs to privacy-where = "clients"'),
        ({"privacy_where": "local", "privacy_unit": "none"}, 'privacy-where = "local" says who adds noise'),
        ({"privacy_where": "local", "privacy_colluders": 2}, "privacy-colluders = 2 belongs to"),
        ({"sampling_rate": 0.0}, "sampling-rate = 0.0 must be above 0 and at most 1"),
        ({"sampling_rate": 1.5}, "sampling-rate = 1.5 must be above 0"),
        ({"sampling_rate": "all"}, "sampling-rate = 'all' must be of type float"),
        ({"privacy_accountant": "gdp"}, "privacy-accountant = 'gdp' is unknown; choose one of prv, rdp"),
        ({"privacy_sampler": "box-muller"}, "privacy-sampler = 'box-muller' is unknown; choose one of rounded, opendp"),
        ({"sampling_rate": 0.5, "privacy_unit": "client"}, 'belongs to privacy-unit = "example"'),
        ({"strategy": "paillier", **SHARED}, "needs strategy = \"masked\", and strategy = 'paillier'"),
        ({"strategy": "nddfe", **SHARED}, "run strategies/masked"),
        ({"strategy": "masked", **SHARED, "privacy_unit": "none"}, "set privacy-unit, or privacy-where"),
        ({"strategy": "masked", **SHARED, "privacy_colluders": 0}, "privacy-colluders = 0 must be at least 1"),
        ({"strategy": "masked", **SHARED, "privacy_colluders": 3}, "set min-survivors to at least 5, or lower"),
        ({"strategy": "masked", **SHARED, "min_survivors": 2}, "set min-survivors to at least 3"),
    ],
)
def test_what_is_refused(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read(**overrides)


# ---------------------------------------------------------------------- Verified
def test_the_verified_app_by_default() -> None:
    settings = read_verified()
    assert settings.verifying is not None
    assert settings.verifying.policy == VerifiedPolicy()
    assert settings.verifying.attackers(10) == malicious(10, 0.4, 0)
    assert settings.data is CHECKABLE["digits"]
    assert read().verifying is None, "other apps have no such keys"


def test_a_rule_is_switched_off_and_on() -> None:
    off = read_verified(policy_norm_factor=0.0, policy_max_drop=-1.0).verifying
    on = read_verified(
        policy_max_norm=3.5, policy_min_accuracy=0.8, policy_max_drop=0.0, policy_reveal="none"
    ).verifying
    assert off is not None
    assert on is not None
    assert off.policy == VerifiedPolicy(norm_factor=None, max_drop=None)
    assert on.policy == VerifiedPolicy(max_norm=3.5, min_accuracy=0.8, max_drop=0.0, reveal="none")


def test_the_policy_reaches_the_strategy() -> None:
    overrides = {"policy_sigmas": 3.0, "policy_warmup_rounds": 2, "policy_cosine": True, "min_accepted": 4}
    strategy = strategy_of(read_verified(**overrides))
    assert isinstance(strategy, Verified)
    assert strategy.policy == VerifiedPolicy(sigmas=3.0, warmup_rounds=2, cosine=True)
    assert strategy.min_survivors == 4


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"dataset": "heart"}, "'heart' has no network that verifiers can compute on shares; choose one of digits"),
        ({"dataset": "mnist"}, "choose one of digits, fashion"),
        ({"attack": "label-flop"}, "attack = 'label-flop' is unknown; choose one of label-flip"),
        ({"attack_strength": 2.0}, "attack = 'label-flip' has no strength"),
        ({"attack": "", "attack_strength": 2.0}, "has no strength"),
        ({"attack_fraction": 1.5}, "attack-fraction must be 0 to 1"),
        ({"attack_seed": -1}, "attack-seed not negative"),
        ({"policy_reveal": "all"}, "policy-reveal = 'all' is unknown; choose one of bit, count, none"),
        ({"policy_norm_factor": 0.5}, "norm_factor=0.5.* must be a number from 1"),
        ({"policy_max_change": 0.0}, "max_change"),
        ({"compression.rate": 0.9}, "compression.rate does not go with"),
    ],
)
def test_what_verified_refuses(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_verified(**overrides)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"privacy_unit": "client"}, "Verified takes no privacy"),
        ({"min_accepted": 2}, "min_accepted must be at least 3"),
        ({"policy_reveal": "none", "ledger.url": "embedded"}, "use Policy\\(reveal='bit'\\)"),
    ],
)
def test_what_the_strategy_itself_refuses(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        strategy_of(read_verified(**overrides))


@pytest.mark.parametrize(
    ("name", "member"), [("scaling", "factor"), ("gaussian-noise", "deviation"), ("boosted-backdoor", "boost")]
)
def test_the_strength_of_an_attack(name: str, member: str) -> None:
    own, strong = (read_verified(attack=name, attack_strength=strength).verifying for strength in (0.0, 7.0))
    assert own is not None
    assert strong is not None
    assert own.attack is ATTACKS[name]
    assert strong.attack == replace(own.attack, **{member: 7.0})  # type: ignore[type-var]


def test_nobody_does_harm_without_an_attack() -> None:
    peaceful = read_verified(attack="").verifying
    assert peaceful is not None
    assert peaceful.attackers(10) == frozenset()


def test_attackers_are_named_once(caplog: pytest.LogCaptureFixture) -> None:
    strategy = strategy_of(read_verified())
    metrics = {f"node-{i}": {"accuracy": 0.5, "num-examples": 10} for i in range(10)}
    with caplog.at_level("INFO"):
        for server_round in (1, 2):
            strategy.on_evaluation(server_round, metrics)
    named = [r.getMessage() for r in caplog.records if "a demonstration" in r.getMessage()]
    assert named == ["flbc: a demonstration: label-flip by node-1, node-4, node-6, node-7"]


# ---------------------------------------------------------------------- strategies
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_shows_accuracies_and_is_the_users_otherwise(name: str) -> None:
    strategy = strategy_of(AppSettings.read({**defaults(name), "dataset": "digits", "num-server-rounds": 7}))
    assert isinstance(strategy, Demo)
    assert (strategy.data, strategy.rounds, strategy.last) == ("digits", 7, {})
    assert strategy.scheme == name
    users = [kind for kind in type(strategy).__mro__[1:] if issubclass(kind, SecureStrategy) and "start" in dir(kind)]
    for method in ("start", "configure_train", "aggregate_train", "aggregate_evaluate"):
        assert getattr(type(strategy), method) is getattr(users[1], method), "the mixin changes the log line alone"


def test_the_masked_app_needs_what_the_strategy_needs() -> None:
    strategy = strategy_of(AppSettings.read({**defaults("masked"), "threshold": 0.75}))
    assert isinstance(strategy, Masked)
    assert strategy.threshold == 0.75
    assert strategy.privacy is not None
    assert (strategy.privacy.where, strategy.privacy.colluders) == ("opener", 1)
    with pytest.raises(ConfigError, match=r"The threshold is 0\.4: pass a fraction"):
        strategy_of(AppSettings.read({**defaults("masked"), "threshold": 0.4}))


@pytest.mark.parametrize("app", APPS, ids=lambda path: path.parent.name)
def test_the_written_threshold_is_two_thirds(app: Path) -> None:
    written = AppSettings.read(defaults(app.parent.name)).threshold
    for group in range(3, 200):
        assert threshold(group, written) == threshold(group) == 2 * group // 3 + 1
    assert written >= Policy().min_threshold


def test_noise_that_the_clients_add() -> None:
    privacy = read(strategy="masked", privacy_where="clients", privacy_colluders=2, min_survivors=4).privacy
    assert privacy is not None
    assert (privacy.where, privacy.colluders) == ("clients", 2)
    assert read(strategy="masked").privacy == read(strategy="paillier").privacy


@pytest.mark.parametrize("strategy", ["paillier", "nddfe", "masked"])
def test_sampling_and_noise_of_every_client_for_itself(strategy: str) -> None:
    settings = read(strategy=strategy, privacy_where="local", sampling_rate=0.2)
    assert settings.privacy is not None
    assert (settings.privacy.where, settings.privacy.sampling_rate) == ("local", 0.2)
    assert isinstance(strategy_of(settings), STRATEGY_CLASSES[strategy])


def test_the_accountant_and_the_sampler() -> None:
    privacy = read(sampling_rate=0.2, privacy_accountant="rdp", privacy_sampler="opendp").privacy
    assert privacy is not None
    assert (privacy.accountant, privacy.sampler) == ("rdp", "opendp")


def test_a_threshold_of_zero_is_left_to_the_key() -> None:
    written = {**defaults("paillier"), "opening": "threshold"}
    assert strategy_of(AppSettings.read(written)).threshold is None
    assert strategy_of(AppSettings.read({**written, "opening-threshold": 3})).threshold == 3


def test_an_unknown_strategy() -> None:
    with pytest.raises(ConfigError, match=r"strategy = 'krum' is unknown; choose one of paillier"):
        strategy_of(read(strategy="krum"))


@pytest.mark.parametrize("name", ["heart", "digits"])
def test_the_line_about_accuracies(name: str, caplog: pytest.LogCaptureFixture) -> None:
    strategy = strategy_of(read(dataset=name))
    metrics = {f"node-{i}": {"accuracy": 0.5 + i / 10, "num-examples": 10 if i else 30} for i in (3, 0, 1)}
    with caplog.at_level("INFO"):
        strategy.on_evaluation(2, {**metrics, "node-10": {"accuracy": 1.0, "num-examples": 0}})
    assert strategy.last["overall"] == pytest.approx((30 * 0.5 + 10 * 0.6 + 10 * 0.8) / 50)
    assert "round 2/30 accuracy: overall 0.580" in caplog.text
    if name == "heart":
        assert "cleveland 0.500  hungary 0.600  switzerland 0.800  node-10 1.000" in caplog.text
    else:
        assert "lowest 0.500  highest 1.000  of 4 nodes" in caplog.text
        assert "cleveland" not in caplog.text


def test_no_line_without_accuracies(caplog: pytest.LogCaptureFixture) -> None:
    strategy = strategy_of(read())
    strategy.on_evaluation(1, {})
    strategy.on_evaluation(1, {"node-0": {"num-examples": 3}, "node-1": {"num-examples": 3, "accuracy": 0.5}})
    assert strategy.last == {}
