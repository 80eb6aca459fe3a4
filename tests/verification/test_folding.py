"""BatchNorm as scale and shift: the same function, no running statistics that a client could lie with."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from flbc.errors import LayoutError
from flbc.verification.folding import EPSILON, fold, summed
from tests.support.networks import cnn, sane


def arrays(module: nn.Module) -> dict[str, NDArray[Any]]:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def load(module: nn.Module, state: dict[str, NDArray[Any]]) -> None:
    module.load_state_dict({name: torch.from_numpy(np.asarray(array)) for name, array in state.items()})


@given(st.integers(0, 2**32), st.sampled_from([torch.float32, torch.float64]))
@settings(max_examples=20, deadline=None)
def test_a_folded_layer_computes_what_it_did(seed: int, dtype: torch.dtype) -> None:
    layer = sane(nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)), seed).to(dtype)
    x = torch.randn(4, 2, 5, 5, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        before = layer(x)
        load(layer, fold(arrays(layer)))
        torch.testing.assert_close(layer(x), before, rtol=1e-5, atol=1e-5)


def test_what_is_shared_determines_the_function() -> None:
    """Scale and shift alone: with statistics of 0 and 1 - eps the layer is ``x * weight + bias``."""
    layer = sane(nn.Sequential(nn.BatchNorm1d(5)), 1)
    folded = fold(arrays(layer))
    x = torch.randn(7, 5)
    with torch.no_grad():
        expected = layer(x)
    np.testing.assert_allclose(x.numpy() * folded["0.weight"] + folded["0.bias"], expected.numpy(), atol=1e-5)
    assert not folded["0.running_mean"].any()
    np.testing.assert_allclose(folded["0.running_var"], 1 - EPSILON)
    # A client that lies about its statistics shares other weights, and these are what is checked.
    lying = arrays(layer) | {"0.running_mean": arrays(layer)["0.running_mean"] + 100}
    assert np.abs(fold(lying)["0.bias"] - folded["0.bias"]).min() > 10
    assert np.array_equal(fold(lying)["0.running_mean"], folded["0.running_mean"])


def test_folding_twice_changes_nothing_but_roundings() -> None:
    once = fold(arrays(cnn()))
    twice = fold(once)
    for name, array in once.items():
        np.testing.assert_allclose(twice[name], array, rtol=1e-6, err_msg=name)


def test_names_shapes_dtypes_and_the_caller_s_arrays_stay() -> None:
    network = cnn()
    before = {name: array.copy() for name, array in arrays(network).items()}
    given_arrays = arrays(network)
    folded = fold(given_arrays)
    assert list(folded) == list(before)
    for name, array in before.items():
        assert (folded[name].shape, folded[name].dtype) == (array.shape, array.dtype)
        assert np.array_equal(given_arrays[name], array)
    assert folded["1.num_batches_tracked"] == before["1.num_batches_tracked"]
    assert np.array_equal(folded["0.weight"], before["0.weight"])


def test_summed_names() -> None:
    assert summed(arrays(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))) == (
        "0.weight",
        "0.bias",
        "1.weight",
        "1.bias",
    )
    assert summed(arrays(nn.BatchNorm1d(3))) == ("weight", "bias")
    # Without weight and bias it is no layer that could be folded.
    assert summed({"a.running_mean": np.zeros(2), "a.running_var": np.ones(2)}) == ("a.running_mean", "a.running_var")


@pytest.mark.parametrize("name", ["steps", "layer.num_batches_tracked"])
@pytest.mark.parametrize("function", [summed, fold])
def test_integer_buffers_are_refused(name: str, function: Any) -> None:
    with pytest.raises(LayoutError, match=rf"{name}: integer buffers cannot be checked"):
        function({"w": np.zeros(2), name: np.array(3)})


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("running_var", -1.0),
        ("running_var", -1.1 * EPSILON),
        ("running_mean", np.inf),
        ("weight", np.nan),
        ("weight", 3e38),
    ],
)
def test_what_is_not_finite_is_refused_and_named(member: str, value: float) -> None:
    state = {"body.1." + name: array.copy() for name, array in arrays(nn.BatchNorm1d(3)).items()}
    state["body.1.running_var"][:] = 1e-3
    state["body.1." + member][1] = value
    with pytest.raises(LayoutError, match=r"^body\.1: "):
        fold(state)


def test_shapes_that_contradict_each_other_are_refused() -> None:
    state = arrays(nn.BatchNorm1d(3)) | {"running_var": np.ones(1, np.float32)}
    with pytest.raises(LayoutError, match=r"the model: .* one shape"):
        fold(state)


def test_clients_load_no_torch() -> None:
    code = "import sys, flbc.verification.folding; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
