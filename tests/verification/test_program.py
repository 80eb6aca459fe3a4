"""Compiled models: what is in them, everything that is refused, and how large numbers can become."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from flbc.demo.networks import dense_block, small_cnn
from flbc.errors import ConfigError, LayoutError
from flbc.verification.folding import summed
from flbc.verification.inference import infer
from flbc.verification.plain import Clear, PlainEngine
from flbc.verification.program import Program, compile_model
from flbc.verification.steps import Add, AvgPool, Conv, Flatten, Linear, MaxPool, Relu, Scale
from tests.support.networks import bounds, cnn, encode, mlp, networks, sane

IMAGE = (2, 8, 8)


class Net(nn.Module):
    """Layers by name, and a forward that a test writes."""

    def __init__(self, forward: Callable[[Any, torch.Tensor], torch.Tensor], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._forward = forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._forward(self, x)


def kinds(program: Program) -> list[type]:
    return [type(step) for step in program.steps]


def ends(*layers: nn.Module) -> nn.Sequential:
    """Layers for two channels of 8 x 8 pixels, and a head of two classes."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))


# ---------------------------------------------------------------------- what a program says
def test_steps_and_parameters() -> None:
    program = compile_model(cnn(), (1, 8, 8))
    # The pool went before the ReLU; the block's last ReLU stays.
    assert kinds(program) == [Conv, Scale, MaxPool, Relu, Conv, Relu, Add, AvgPool, Flatten, Linear]
    assert [step.output for step in program.steps] == list(range(1, 11))
    assert program.steps[6].inputs == (4, 6)
    assert (program.input_shape, program.classes) == ((1, 8, 8), 10)
    assert list(program.parameters.items())[:4] == [
        ("0.weight", (4, 1, 3, 3)),
        ("0.bias", (4,)),
        ("1.weight", (4,)),
        ("1.bias", (4,)),
    ]


@given(networks())
@settings(max_examples=25, deadline=None)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_parameters_are_what_clients_share(drawn: tuple[nn.Sequential, tuple[int, ...]]) -> None:
    network, shape = drawn
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    program = compile_model(network, shape)
    assert tuple(program.parameters) == summed(state)
    assert all(state[name].shape == size for name, size in program.parameters.items())


def test_compiling_changes_nothing_in_the_module() -> None:
    network = cnn().train()
    before = copy.deepcopy(network.state_dict())
    compile_model(network, (1, 8, 8))
    assert all(layer.training for layer in network.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_equal_networks_have_equal_hashes_whatever_their_weights() -> None:
    program = compile_model(cnn(), (1, 8, 8))
    again = compile_model(sane(cnn(), 99), [1, 8, 8])
    assert (again, again.hash) == (program, program.hash)
    assert len(program.hash) == 32
    assert json.loads(json.dumps(program.to_dict()))["steps"][0]["op"] == "conv"


@pytest.mark.parametrize(
    "other",
    [
        ends(nn.Conv2d(2, 2, 3, padding=1, stride=2), nn.ReLU()),
        ends(nn.Conv2d(2, 2, 3, padding=1, groups=2), nn.ReLU()),
        ends(nn.Conv2d(2, 2, 3, padding=1, dilation=2), nn.ReLU()),
        ends(nn.Conv2d(2, 2, 3), nn.ReLU()),
        ends(nn.Conv2d(2, 2, 3, padding=1, bias=False), nn.ReLU()),
        ends(nn.ReLU(), nn.Conv2d(2, 2, 3, padding=1)),
        ends(nn.Conv2d(2, 2, 3, padding=1)),
        ends(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
        ends(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    ],
)
def test_other_networks_have_other_hashes(other: nn.Module) -> None:
    network = ends(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU())
    assert compile_model(other, IMAGE).hash != compile_model(network, IMAGE).hash


def test_the_ways_of_writing_one_network() -> None:
    layers = {"conv": nn.Conv2d(2, 2, 3), "head": nn.Linear(18, 2)}
    modules = nn.Sequential()
    for name, layer in {
        "conv": layers["conv"],
        "relu": nn.ReLU(),
        "pool": nn.AvgPool2d(2),
        "rows": nn.Flatten(),
        "head": layers["head"],
    }.items():
        modules.add_module(name, layer)
    expected = compile_model(modules, IMAGE)
    forwards: list[Callable[[Any, torch.Tensor], torch.Tensor]] = [
        lambda m, x: m.head(torch.flatten(functional.avg_pool2d(functional.relu(m.conv(x)), 2), 1)),
        lambda m, x: m.head(functional.avg_pool2d(torch.relu(m.conv(x)), (2, 2), stride=2).flatten(1)),
        lambda m, x: m.head(functional.avg_pool2d(m.conv(x).relu(), 2).view(x.size(0), -1)),
        lambda m, x: m.head(functional.avg_pool2d(m.conv(x).relu_(), 2).reshape(x.shape[0], 18)),
        lambda m, x: m.head(functional.avg_pool2d(functional.relu(m.conv(x), inplace=True), 2).view(-1, 18)),
        lambda m, x: m.head(
            functional.dropout(functional.avg_pool2d(m.conv(x).relu(), 2).view((x.size()[0], -1)), training=m.training)
        ),
        lambda m, x: m.head(torch.flatten(functional.avg_pool2d(m.conv(x).relu(), 2), start_dim=1).flatten(1)),
    ]
    for number, forward in enumerate(forwards):
        assert compile_model(Net(forward, **copy.deepcopy(layers)), IMAGE) == expected, number


def test_a_layer_alone_and_a_layer_used_twice() -> None:
    assert compile_model(nn.Linear(3, 2), (3,)).parameters == {"weight": (2, 3), "bias": (2,)}
    twice = compile_model(Net(lambda m, x: m.a(m.a(x).relu()), a=nn.Linear(3, 3)), (3,))
    assert kinds(twice) == [Linear, Relu, Linear]
    assert list(twice.parameters) == ["a.weight", "a.bias"]


def test_pools_go_first_only_where_nobody_else_reads() -> None:
    pool = nn.MaxPool2d(3, 1)
    assert kinds(compile_model(ends(nn.ReLU(), nn.Dropout(), pool, pool), IMAGE))[:3] == [MaxPool, MaxPool, Relu]

    def both(m: Any, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(x)
        return functional.max_pool2d(y, 3, 1) + m.conv(y)

    shared = ends(Net(both, conv=nn.Conv2d(2, 2, 3)))
    assert kinds(compile_model(shared, IMAGE))[:4] == [Relu, MaxPool, Conv, Add]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 8, 49, 196, 784, 1000])
def test_means_are_precise_for_every_size_of_window(count: int) -> None:
    program = compile_model(nn.Sequential(nn.AvgPool2d((1, count)), nn.Flatten(), nn.Linear(1, 2)), (1, 1, count))
    step = program.steps[0]
    assert isinstance(step, AvgPool)
    assert step.factor / 2**step.shift == pytest.approx(1 / count, rel=2**-14)


# ---------------------------------------------------------------------- what is refused
REFUSED: list[tuple[nn.Module, str]] = [
    (ends(nn.GroupNorm(1, 2)), r"0 \(GroupNorm\)"),
    (ends(nn.Sigmoid()), r"0 \(Sigmoid\)"),
    (ends(nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect")), r"0 \(Conv2d\): .*padding_mode='reflect'"),
    (ends(nn.ConvTranspose2d(2, 2, 3)), r"0 \(ConvTranspose2d\)"),
    (ends(nn.MaxPool2d(2, padding=1)), r"0 \(MaxPool2d\): must be without padding and ceil_mode"),
    (ends(nn.MaxPool2d(3, ceil_mode=True)), "ceil_mode"),
    (ends(nn.MaxPool2d(2, dilation=2)), "without dilation and indices"),
    (ends(nn.AvgPool2d(2, padding=1)), r"0 \(AvgPool2d\): must be without padding"),
    (ends(nn.AvgPool2d(2, ceil_mode=True)), "ceil_mode"),
    (ends(nn.AvgPool2d(2, divisor_override=3)), "divide by the size"),
    (ends(nn.AdaptiveAvgPool2d(2), nn.AvgPool2d(2)), "must have output size 1"),
    (ends(nn.AdaptiveAvgPool2d((None, 1))), "not one or two whole numbers"),
    (ends(nn.BatchNorm2d(2, eps=1e-3)), r"0 \(BatchNorm2d\): must be affine, with running statistics and eps=1e-05"),
    (ends(nn.BatchNorm2d(2, track_running_stats=False)), "must be affine"),
    (ends(nn.BatchNorm2d(2, affine=False)), "integer buffers|must be affine"),
    (ends(nn.InstanceNorm2d(2, affine=True, track_running_stats=True)), r"0 \(InstanceNorm2d\)"),
    (nn.Sequential(nn.Linear(8, 2), nn.Flatten(), nn.Linear(32, 2)), r"0 \(Linear\): works on 2 axes here"),
    (nn.Sequential(nn.Flatten(2), nn.Flatten(), nn.Linear(128, 2)), r"0 \(Flatten\): must begin with axis 1"),
    (nn.Sequential(nn.Flatten(1, 2), nn.Flatten(), nn.Linear(128, 2)), "end with the last"),
    (Net(lambda m, x: m.a(torch.flatten(x).view(-1, 128)), a=nn.Linear(128, 2)), r"flatten \(flatten\): must begin"),
    (Net(lambda m, x: m.a(x.view(3, -1)), a=nn.Linear(128, 2)), r"view \(view\): must flatten"),
    (Net(lambda m, x: m.a(x.view(-1, 64)), a=nn.Linear(64, 2)), "mixes samples"),
    (Net(lambda m, x: m.a(x.flatten(1)) * 2, a=nn.Linear(128, 2)), r"mul \(mul\)"),
    (Net(lambda m, x: m.a(x.flatten(1)) + 1, a=nn.Linear(128, 2)), r"add \(add\): must add two values"),
    (Net(lambda m, x: 1 + m.a(x.flatten(1)), a=nn.Linear(128, 2)), r"add \(add\)"),
    (Net(lambda m, x: torch.add(*2 * [m.a(x.flatten(1))], alpha=2), a=nn.Linear(128, 2)), "must add two values"),
    (Net(lambda m, x: m.a(x[:, 0].flatten(1)), a=nn.Linear(64, 2)), r"getitem \(getitem\)"),
    (Net(lambda m, x: torch.sigmoid(m.a(x.flatten(1))), a=nn.Linear(128, 2)), r"sigmoid \(sigmoid\)"),
    (Net(lambda m, x: m.a(x.flatten(1)).tanh(), a=nn.Linear(128, 2)), r"tanh \(tanh\)"),
    (
        Net(lambda m, x: functional.linear(x.flatten(1), m.a.weight), a=nn.Linear(128, 2, bias=False)),
        r"a.weight\): used outside",
    ),
    (Net(lambda m, x: m.a(functional.dropout(x).flatten(1)), a=nn.Linear(128, 2)), "drops in evaluation too"),
    (
        Net(lambda m, x: m.a(m.b(x)[0].flatten(1)), a=nn.Linear(128, 2), b=nn.MaxPool2d(1, return_indices=True)),
        "indices",
    ),
    (Net(lambda m, x: m.a(x).flatten(1), a=nn.Conv2d(2, 1, 8)), r"output \(output\): must be logits .* two classes"),
    (Net(lambda m, x: m.a(x), a=nn.Conv2d(2, 2, 8)), r"must be logits of shape \(N, classes\)"),
    (Net(lambda m, x: (m.a(x.flatten(1)),), a=nn.Linear(128, 2)), "must be logits"),
]


@pytest.mark.parametrize(("module", "reason"), REFUSED)
def test_what_cannot_be_computed_is_refused(module: nn.Module, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        compile_model(module, IMAGE)


def test_everything_in_the_way_is_listed_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        compile_model(ends(nn.GroupNorm(1, 2), nn.Tanh(), nn.AvgPool2d(2, padding=1), nn.Softmax2d()), IMAGE)
    text = str(caught.value)
    assert all(name in text for name in ("0 (GroupNorm)", "1 (Tanh)", "2 (AvgPool2d)", "3 (Softmax2d)"))
    assert "Supported: Linear" in text
    assert "(Flatten)" not in text


@pytest.mark.parametrize("network", [small_cnn(3), dense_block(3)])
def test_networks_with_group_norm_are_refused(network: nn.Module) -> None:
    with pytest.raises(ConfigError, match="GroupNorm"):
        compile_model(network, (1, 28, 28))


def test_the_demo_s_network_with_batch_norm_compiles() -> None:
    network = small_cnn(10)
    network.norm1, network.norm2 = nn.BatchNorm2d(8), nn.BatchNorm2d(16)
    assert kinds(compile_model(network, (1, 28, 28))) == [
        *(Conv, Scale, MaxPool, Relu) * 2,
        Flatten,
        Linear,
        Relu,
        Linear,
    ]


# ---------------------------------------------------------------------- modules that are not what they seem
def test_a_subclass_of_a_layer_is_not_that_layer() -> None:
    """It would pass the check as a convolution and compute something else when it is used."""

    class Trojan(nn.ReLU):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x)

    with pytest.raises(ConfigError, match="tanh"):
        compile_model(ends(Trojan()), IMAGE)
    Trojan.__module__ = "torch.nn.modules.activation"  # now traces do not look inside
    with pytest.raises(ConfigError, match=r"0 \(Trojan\)"):
        compile_model(ends(Trojan()), IMAGE)


def test_hooks_and_replaced_forwards_are_refused() -> None:
    hooked, early, replaced = ends(nn.ReLU()), ends(nn.ReLU()), ends(nn.ReLU())
    hooked[0].register_forward_hook(lambda _module, _inputs, output: output * 2)
    early[0].register_forward_pre_hook(lambda _module, inputs: (inputs[0] * 2,))
    replaced[0].forward = lambda x: x * 2
    for network in (hooked, early, replaced):
        with pytest.raises(ConfigError, match=r"0 \(ReLU\): has hooks or a forward of its own"):
            compile_model(network, IMAGE)


def test_weights_made_of_others_are_refused() -> None:
    network = ends(nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 2, 3)))
    with pytest.raises(ConfigError, match=r"0 \(ParametrizedConv2d\)"):
        compile_model(network, IMAGE)


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: (lambda y: m.inplace(y) + y)(m.a(x.flatten(1))),
        lambda m, x: (lambda y: (m.inplace(y), y)[1])(m.a(x.flatten(1))),
        lambda m, x: (lambda y: functional.relu(y, inplace=True) + y)(m.a(x.flatten(1))),
        lambda m, x: (lambda y: m.identity(y).relu_() + y)(m.a(x.flatten(1))),
        lambda m, x: (lambda y: functional.relu(torch.flatten(input=y, start_dim=1), inplace=True) + y)(
            m.a(x.flatten(1))
        ),
        lambda m, x: m.a((lambda y: y.flatten(1).relu_() + y.view(-1, 128))(m.conv(x))),
        lambda m, x: (lambda y: (y.flatten(1).relu_(), m.a(m.conv(y).flatten(1)))[1])(m.conv(x)),
        lambda m, x: (lambda y: y.add_(m.a(functional.relu(x.flatten(1)))) + y)(m.a(x.flatten(1))),
    ],
)
def test_overwriting_what_is_read_elsewhere_is_refused(forward: Any) -> None:
    """The steps would add the value from before the ReLU; PyTorch adds the one from after it."""
    network = Net(forward, a=nn.Linear(128, 2), inplace=nn.ReLU(inplace=True), identity=nn.Identity())
    network.add_module("conv", nn.Conv2d(2, 2, 1))
    with pytest.raises(ConfigError, match="overwrites a value that is read elsewhere"):
        compile_model(network, IMAGE)


def test_residual_blocks_may_overwrite_what_only_they_read() -> None:
    def forward(m: Any, x: torch.Tensor) -> torch.Tensor:
        out = m.conv(x)
        out += x
        return m.head(m.relu(out).flatten(1))

    network = Net(forward, conv=nn.Conv2d(2, 2, 1), relu=nn.ReLU(inplace=True), head=nn.Linear(128, 2))
    assert kinds(compile_model(network, IMAGE)) == [Conv, Add, Relu, Flatten, Linear]


def test_parameters_without_influence_are_refused() -> None:
    """They would be summed, and nobody would have looked at them."""
    unused = ends()
    unused.register_parameter("extra", nn.Parameter(torch.zeros(3)))
    with pytest.raises(ConfigError, match=r"^extra: they would be summed without having been checked"):
        compile_model(unused, IMAGE)
    dead = Net(lambda m, x: (m.b(x.flatten(1)), m.a(x.flatten(1)))[1], a=nn.Linear(128, 2), b=nn.Linear(128, 2))
    with pytest.raises(ConfigError, match=r"^b\.weight, b\.bias: "):
        compile_model(dead, IMAGE)
    buffer = ends()
    buffer.register_buffer("statistics", torch.zeros(3))
    with pytest.raises(ConfigError, match=r"^statistics: "):
        compile_model(buffer, IMAGE)
    with pytest.raises(ConfigError, match="no parameters"):
        compile_model(nn.Flatten(), IMAGE)


def test_tied_parameters_are_refused() -> None:
    """A client could share two different tensors, of which only one would be used in the end."""
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    with pytest.raises(ConfigError, match=r"1\.weight and 0\.weight are one tensor"):
        compile_model(network, (3,))
    layer = nn.Linear(3, 3)
    with pytest.raises(ConfigError, match=r"b\.weight and a\.weight are one tensor"):
        compile_model(Net(lambda m, x: m.a(m.b(x)), a=layer, b=layer), (3,))


def test_threads_may_compile_at_once() -> None:
    """The three nodes of a simulation are threads."""
    network = cnn()
    with ThreadPoolExecutor(8) as pool:
        hashes = {program.hash for program in pool.map(lambda _: compile_model(network, (1, 8, 8)), range(32))}
    assert hashes == {compile_model(network, (1, 8, 8)).hash}


def test_state_that_cannot_be_shared_is_refused() -> None:
    counting = ends()
    counting.register_buffer("calls", torch.tensor(0))
    with pytest.raises(ConfigError, match="calls: integer buffers"):
        compile_model(counting, IMAGE)
    for dtype in (torch.bfloat16, torch.float16):
        with pytest.raises(ConfigError, match=r"0\.weight: the state dict must hold float32 or float64"):
            compile_model(mlp().to(dtype), (6,))

    class Extra(Net):
        def get_extra_state(self) -> dict[str, int]:
            return {"secret": 1}

    with pytest.raises(ConfigError, match="_extra_state: the state dict"):
        compile_model(Extra(lambda m, x: m.a(x), a=nn.Linear(6, 2)), (6,))


@pytest.mark.parametrize("shape", [(), (0,), (3, -1)])
def test_shapes_of_samples(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="shape of one sample"):
        compile_model(mlp(), shape)


def test_wrong_shapes_and_untraceable_modules_say_so() -> None:
    with pytest.raises(ConfigError, match=r"Sequential fails on samples of shape \(5,\)"):
        compile_model(mlp(), (5,))
    with pytest.raises(ConfigError, match=r"torch\.fx cannot trace Net"):
        compile_model(Net(lambda m, x: m.a(x) if x.sum() > 0 else x, a=nn.Linear(2, 2)), (2,))


# ---------------------------------------------------------------------- bounds
@given(networks(), st.floats(0.1, 8.0), st.integers(0, 2**20))
@settings(max_examples=30, deadline=None)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_no_model_within_bounds_exceeds_the_gain(
    drawn: tuple[nn.Sequential, tuple[int, ...]], reach: float, seed: int
) -> None:
    network, shape = drawn
    program = compile_model(network, shape)
    limits = {name: reach * torch.rand(size) for name, size in program.parameters.items()}
    bits = program.gain(limits, reach)
    generator = torch.Generator().manual_seed(seed)
    for sign in (1.0, 0.0):

        def within(limit: torch.Tensor, sign: float = sign) -> torch.Tensor:
            drawn = 2 * torch.rand(limit.shape, generator=generator) - 1
            return limit * (sign + (1 - sign) * drawn)

        model = {name: Clear(encode(within(limit))) for name, limit in limits.items()}
        samples = Clear(encode(within(torch.full((2, *shape), reach))))
        watching = Watching()
        infer(watching, program, [model], samples)
        assert watching.largest <= 2**bits
        if sign and watching.largest > 2**26:
            # Where all weights and inputs are as large as they may be, it comes close.
            assert 2**bits <= 1.1 * watching.largest


class Watching(PlainEngine):
    """Notes the largest number that is truncated or compared."""

    largest = 1

    def look(self, values: torch.Tensor) -> None:
        self.largest = max(self.largest, int(values.abs().max()))

    def truncate_part(self, part: torch.Tensor, bits: int) -> Clear:
        self.look(part)
        return super().truncate_part(part, bits)

    def truncate(self, x: Clear, bits: int) -> Clear:
        self.look(x.values)
        return super().truncate(x, bits)

    def relu(self, x: Clear) -> Clear:
        self.look(x.values)
        return super().relu(x)


def test_gain_of_one_layer_by_hand() -> None:
    program = compile_model(nn.Linear(4, 2, bias=False), (4,))
    weight = torch.tensor([[0.5, 0.5, 0.5, 0.5], [1.0, 1.0, 1.0, 1.0]])
    # Row 2: 4 * 1.0 * 8.0 in units of 2^-26, and nothing but roundings beside.
    assert program.gain({"weight": weight}, 8.0) == pytest.approx(26 + 5, abs=1e-2)
    assert program.gain({"weight": -weight}, 8.0) == program.gain({"weight": weight}, 8.0)


def test_gain_counts_what_is_compared() -> None:
    """Without weights nothing but biases is there: 2^13 a unit, and twice that between two."""
    program = compile_model(nn.Linear(4, 2), (4,))
    large = {"weight": torch.zeros(2, 4), "bias": torch.tensor([1.0, 2.0**20])}
    assert program.gain(large, 1.0) == pytest.approx(13 + 20 + 1, abs=1e-2)


def test_gain_grows_with_depth() -> None:
    """Five layers of width 64 within 1.0 take 6 bits each: a hostile model could overflow."""
    network = nn.Sequential(*(layer for _ in range(7) for layer in (nn.Linear(64, 64), nn.ReLU())))
    program = compile_model(network, (64,))
    assert program.gain({name: torch.ones(size) for name, size in program.parameters.items()}, 1.0) > 64
    assert program.gain(bounds(sane(network, 0)), 1.0) < 64


def test_bounds_must_be_of_every_parameter() -> None:
    program = compile_model(mlp(), (6,))
    limits = dict(bounds(mlp()))
    with pytest.raises(LayoutError, match=r"Bounds of 0\.bias must have shape \(8,\)"):
        program.gain(limits | {"0.bias": torch.ones(1)}, 1.0)
    del limits["2.weight"]
    with pytest.raises(LayoutError, match=r"2\.weight"):
        program.gain(limits, 1.0)
