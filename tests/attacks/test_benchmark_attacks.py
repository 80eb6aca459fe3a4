"""The attacks of benchmarks/attacks.py work where there is something to find, and views are what they say they are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("mlxtend")
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

import attacks  # noqa: E402
from _attacks import integrity, views  # noqa: E402
from _attacks.guessing import which_of_two  # noqa: E402
from _attacks.inversion import from_linear_layer, invert, judge  # noqa: E402
from _attacks.membership import RoundAttack, by_loss, by_shadows, rates  # noqa: E402
from _attacks.model_inversion import Likeness, invert_classes  # noqa: E402
from _attacks.problem import Images, Network, digits, psnr, softmax_regression, ssim  # noqa: E402
from _attacks.survey import Kind, Row, Scene, doubts, explore, rows, search_kinds  # noqa: E402
from _attacks.training import Recipe, shadows, train  # noqa: E402

BITS = 2048


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def images() -> Images:
    return digits()


@cache
def convolutions() -> Network:
    return Network(seed=1)


@cache
def linear() -> Network:
    return Network(softmax_regression, seed=1)


@cache
def ways() -> Any:
    return views.strategies(BITS)


def scene(clients: int, examples: int) -> Scene:
    some, network = images().part(slice(0, 200)), convolutions()
    return Scene(network, some, network.each(network.start, some), clients, examples)


# ---------------------------------------------------------------------- gradient inversion
def test_a_linear_layer_gives_away_its_input_exactly() -> None:
    """Known answer: each row of the gradient of the weights is the input times the gradient of the bias."""
    network, one = linear(), images().part(slice(3, 4))
    arrays = network.split(network.gradient(network.start, one.x, one.y))
    found = from_linear_layer(torch.from_numpy(arrays["1.weight"]), torch.from_numpy(arrays["1.bias"]))
    assert torch.allclose(found, one.x.reshape(-1).double(), atol=1e-5)


def test_inversion_finds_an_image_and_finds_nothing_in_noise() -> None:
    network, two = convolutions(), images().part(slice(0, 2))
    means = images().part(slice(2000, 3500)).means
    gradients = network.each(network.start, two)
    noise = torch.randn(gradients.shape, generator=torch.Generator().manual_seed(4)) * gradients.std()
    both = torch.cat([gradients, noise])
    labels = two.y.repeat(2)[:, None]
    found = invert(network, both, labels, iterations=150)
    truth = [two.part(slice(i, i + 1)) for i in range(2)]
    clear, hidden = judge(found[:2], truth, means), judge(found[2:], truth, means)
    assert clear.decibels > clear.baseline + 6
    assert clear.similarity > 0.6
    assert hidden.decibels < hidden.baseline
    assert clear.images == 2


def test_measures_of_likeness() -> None:
    """PSNR of an error of a tenth everywhere is 20 dB."""
    one = images().x[0]
    assert psnr(torch.full((1, 28, 28), 0.4), torch.full((1, 28, 28), 0.5)) == pytest.approx(20, abs=1e-4)
    assert ssim(one, one) == pytest.approx(1)
    assert ssim(1 - one, one) < 0.1


# ---------------------------------------------------------------------- views
SEEN = {
    ("FedAvg", "server"): {"one update"},
    ("FedAvg", "client"): {"sum of 4"},
    ("Paillier", "server"): {"sum of 4", "hidden: Paillier, server"},
    ("Paillier", "client + server"): {"sum of 3"},
    ("Paillier", "server + helper"): {"one update"},
    ("NddFe", "server + generator"): {"hidden: NddFe, server + generator"},
    ("NddFe", "server + helper"): {"one update"},
    ("Masked", "server + helper"): {"one update"},
    ("Verified", "verifier"): {"hidden: Verified, verifier"},
    ("Verified", "server + helper"): {"one update"},
}


def test_every_party_sees_what_the_table_says() -> None:
    strategies = ways()
    found = explore(scene(4, 1), strategies, [row for row in rows(strategies) if row.epsilon != 1])
    assert found.missed == []
    titles = {(row.title, party): {kind.title for kind in kinds} for (row, party), kinds in found.cells.items()}
    assert {key: titles[key] for key in SEEN} == SEEN
    noised = {name for (name, party), kinds in titles.items() if party == "server" and any("noise" in k for k in kinds)}
    assert noised == {"Paillier, ε = 3", "NddFe, ε = 3", "Masked, ε = 3, noise by clients"}
    assert titles["Paillier, ε = 3", "helper"] == {"sum of 4"}, "who adds the noise knows it"


@pytest.mark.parametrize("lie", ["another sum", "less noise", "a payload in clear"])
def test_a_sight_that_is_not_what_it_says_is_noticed(lie: str) -> None:
    stage = scene(4, 1)
    row = Row("NddFe") if lie != "less noise" else Row("NddFe", 3.0)
    sums = stage.sums(row, stage.deal(0))
    seen = ways()["NddFe"].look(stage.terms(row), sums)
    assert not any(doubts(row, sight, sums) for sight in seen)
    if lie == "a payload in clear":
        false = replace(next(sight for sight in seen if sight.hidden), values=sums[views.VICTIM])
    else:
        shown = next(sight for sight in seen if sight.party == "client")
        false = replace(shown, values=shown.values / 2)
    assert doubts(row, false, sums)


class OnePad(views.NddFeStrategy):
    """The weak form: the same pad for every payload."""

    def hide(self, spec: Any) -> Callable[[Any], bytes]:
        pad = np.random.default_rng(1).integers(-(2**31), 2**31, spec.length)
        return lambda values: (values + pad).astype(np.uint32).tobytes()


def test_payloads_cannot_be_told_apart_unless_a_pad_is_used_twice() -> None:
    strategies = ways()
    assert which_of_two(strategies["FedAvg"], 4, 40) == 1
    assert which_of_two(OnePad(), 4, 400) > 0.8
    for name in ("NddFe", "Masked", "Verified"):
        assert which_of_two(strategies[name], 4, 400) < 0.5 + 5 * 0.5 / 200**0.5, name


def test_paillier_payloads_cannot_be_told_apart() -> None:
    assert which_of_two(ways()["Paillier"], 4, 100) < 0.5 + 5 * 0.5 / 50**0.5


# ---------------------------------------------------------------------- membership
def test_rates_of_known_scores() -> None:
    """Of four pairs three are in order: an AUC of 0.75."""
    assert rates(np.array([2.0, 4.0]), np.array([1.0, 3.0])).auc == 0.75
    assert rates(np.array([5.0]), np.arange(4.0)).at_one_percent == 1
    assert rates(np.ones(3), np.ones(5)).auc == 0.5


@pytest.mark.parametrize(
    ("count", "sigma", "low", "high"), [(1, 0.0, 0.99, 1), (20, 0.0, 0.9, 1), (20, 60.0, 0.4, 0.6)]
)
def test_a_gradient_is_found_in_a_sum_but_not_under_noise(count: int, sigma: float, low: float, high: float) -> None:
    draw = torch.Generator().manual_seed(5)
    public, own = (torch.randn(n, 300, generator=draw) for n in (100, 800))
    attack = RoundAttack(public, count, sigma)
    members, others = [], []
    for part in own[:400].split(count)[:20]:
        total = part.sum(dim=0) + sigma * torch.randn(300, generator=draw)
        members.append(attack.scores(total, part))
        others.append(attack.scores(total, own[400 : 400 + 20]))
    assert low <= rates(np.concatenate(members), np.concatenate(others)).auc <= high


def test_members_show_in_one_update_of_a_real_round() -> None:
    stage, network = scene(4, 10), convolutions()
    found = explore(stage, ways(), [Row("FedAvg"), Row("Masked"), Row("NddFe", 1.0)])
    public = network.each(network.start, images().part(slice(2000, 2300)))
    kinds = {kind.title: kind for kind in found.makers}
    chosen = [kinds["one update"], kinds["hidden: Masked, server"]]
    clear, hidden = search_kinds(stage, ways(), found, chosen, 4, public).values()
    assert clear.auc > 0.95
    assert hidden.auc < 0.75


def test_members_show_in_a_model_that_knows_them_by_heart() -> None:
    recipe = Recipe(4, 10, rounds=6)
    pool = images().part(slice(0, 80))
    others = shadows(linear(), recipe, pool, 6, seed=1)
    chosen = np.arange(80) < 40
    model = train(linear(), recipe, pool.part(slice(0, 40)), 2, ways()["NddFe"])
    assert by_loss(linear(), model, pool.part(slice(0, 40)), pool.part(slice(40, 80))).auc > 0.6
    assert by_shadows(linear(), model, pool, chosen, others).auc > 0.7
    unseen = train(linear(), recipe, images().part(slice(100, 140)), 2)
    assert 0.25 < by_shadows(linear(), unseen, pool, chosen, others).auc < 0.75


def test_a_model_trained_through_hidden_sums_is_the_model_of_clear_sums() -> None:
    recipe, some = Recipe(3, 4, rounds=2), images().part(slice(0, 12))
    clear = train(linear(), recipe, some, 1)
    for name in ("NddFe", "Masked"):
        hidden = train(linear(), recipe, some, 1, ways()[name])
        for key, value in clear.items():
            assert torch.allclose(hidden[key], value, atol=1e-4)


def test_what_epsilon_allows() -> None:
    """Less of a budget allows less; none allows everything."""
    strict, lax = (attacks.allowed(Recipe(4, 5, epsilon, rounds=3), linear()) for epsilon in (1.0, 3.0))
    assert 0.5 < strict < lax < 1 == attacks.allowed(Recipe(4, 5), linear())


def test_art_finds_members_of_an_overfitted_model() -> None:
    pytest.importorskip("art")
    from _attacks.membership import by_art

    some = images().part(slice(0, 160))
    model = train(linear(), Recipe(4, 20, rounds=12), some.part(slice(0, 80)), 2)
    assert by_art(linear(), model, some.part(slice(0, 80)), some.part(slice(80, 160))).auc > 0.5


# ---------------------------------------------------------------------- model inversion
def test_a_model_made_of_mean_digits_shows_them() -> None:
    """Known answer: the slope of a linear model's class is its weights, less the mean of all."""
    pytest.importorskip("art")
    means, network = images().part(slice(0, 500)).means, linear()
    shown = {"1.weight": (means - means.mean(dim=0)).reshape(10, -1), "1.bias": torch.zeros(10)}
    found = invert_classes(network, shown, network, shown, means, iterations=30)
    assert found.correlation > 0.6
    assert found.recognised == 1
    nothing = invert_classes(network, network.start, network, shown, means, iterations=30)
    assert nothing.correlation < 0.2


# ---------------------------------------------------------------------- integrity
@pytest.fixture
def arenas(tmp_path: Path) -> dict[str, Callable[[], integrity.Arena]]:
    return integrity.arenas(tmp_path)


@pytest.mark.parametrize(("who", "how"), integrity.CHEATS)
def test_fedavg_accepts_everything(who: str, how: str) -> None:
    assert integrity.plain(who, how) == integrity.ACCEPTED


@pytest.mark.parametrize("name", ["Paillier", "NddFe", "Masked", "Verified"])
def test_what_changed_on_the_way_is_refused(name: str, arenas: Any) -> None:
    arena = arenas[name]()
    for how in ("tampered", "replayed", "copied"):
        assert arena.on_the_way(how) == "refused by server: VerificationError"


@pytest.mark.parametrize("how", ["tampered", "dropped", "scaled"])
def test_a_lying_server_is_refused(how: str, arenas: Any) -> None:
    assert arenas["Paillier"]().the_server(how) == "refused by authority: OpeningRefusedError"
    committee = "with a ledger refused by committee: VerificationError"
    first = "accepted" if how == "tampered" else "opens to noise"
    assert arenas["Masked"]().the_server(how) == f"{first}; {committee}"
    other = "refused by decryptor: OpeningRefusedError"
    assert arenas["NddFe"]().the_server(how) == (f"accepted; {committee}" if how == "tampered" else other)


def test_poisoning_passes_but_for_checked_models(arenas: Any) -> None:
    for name in ("Paillier", "NddFe", "Masked"):
        assert arenas[name]().a_client("scaled") == integrity.ACCEPTED
        assert "refused" in arenas[name]().a_client("copied")
    assert arenas["Verified"]().a_client("scaled") == "left out by verifiers"


def test_a_verified_update_passes_as_it_was(arenas: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: sent again in the same way, but honestly, the update is accepted; so it was its size."""
    monkeypatch.setattr(integrity, "FACTOR", 1)
    assert arenas["Verified"]().a_client("scaled") == integrity.ACCEPTED


# ---------------------------------------------------------------------- thresholds
def test_bad_numbers_are_judged() -> None:
    nothing = torch.zeros(10, 1, 28, 28)
    results = attacks.Results(
        games={"FedAvg": 0.5, "Paillier": 1.0},
        likeness={"no privacy": (0.8, Likeness(0.1, 0.0, nothing)), "ε = 1": (0.3, Likeness(0.1, 0.0, nothing))},
        outcomes={("Paillier", "the server", "dropped"): "accepted"},
        searched={4: {Kind(4, 5.0, True): rates(np.ones(9), np.zeros(9)), Kind(1): rates(np.zeros(9), np.ones(9))}},
        inverted={4: {}},
    )
    assert len(attacks.judged(results, attacks.Effort())) == 6
