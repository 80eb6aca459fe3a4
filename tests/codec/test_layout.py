import numpy as np
import pytest

from flbc.codec import Layout, Tensor
from flbc.codec.layout import check_finite
from flbc.errors import CodecError, LayoutError, NonFiniteError

MODEL = {
    "conv.weight": np.zeros((2, 3), np.float32),
    "bn.running_mean": np.zeros(3, np.float32),
    "bn.num_batches_tracked": np.zeros((), np.int64),
    "scale": np.zeros((), np.float64),
    "half": np.zeros(4, np.float16),
    "empty": np.zeros((0, 5), np.float32),
}


def test_kinds_without_privacy():
    kinds = {t.name: t.kind for t in Layout.of(MODEL).tensors}
    assert kinds == dict.fromkeys(MODEL, "float") | {"bn.num_batches_tracked": "integer"}


def test_with_privacy_buffers_and_running_statistics_are_frozen():
    kinds = {t.name: t.kind for t in Layout.of(MODEL, private=True).tensors}
    frozen = {"bn.running_mean", "bn.num_batches_tracked"}
    assert {name for name, kind in kinds.items() if kind == "frozen"} == frozen
    assert Layout.of({"running_var": np.zeros(2)}, private=True).count("frozen") == 2
    assert Layout.of({"my_running_variance": np.zeros(2)}, private=True).count("float") == 2


def test_counts_and_slices():
    layout = Layout.of(MODEL)
    assert (layout.count("float"), layout.count("integer"), layout.count("frozen")) == (6 + 3 + 1 + 4 + 0, 1, 0)
    places = {tensor.name: (place.start, place.stop) for tensor, place in layout.float_slices()}
    assert places == {
        "conv.weight": (0, 6),
        "bn.running_mean": (6, 9),
        "scale": (9, 10),
        "half": (10, 14),
        "empty": (14, 14),
    }
    assert [(t.name, p) for t, p in layout.integer_slices()] == [("bn.num_batches_tracked", slice(0, 1))]


@pytest.mark.parametrize("dtype", [np.bool_, np.complex64, "U3", "datetime64[s]", object])
def test_other_dtypes_are_refused_by_name(dtype):
    with pytest.raises(LayoutError, match=r"Array 'mask' has dtype .*only floating-point and integer"):
        Layout.of({"mask": np.zeros(2, dtype)})


def test_list_form_round_trips():
    layout = Layout.of(MODEL, private=True)
    assert Layout.from_list(layout.to_list()) == layout
    assert Layout.from_list(layout.to_list()).hash == layout.hash


@pytest.mark.parametrize(
    "other",
    [
        Tensor("v", (2, 3), "float32", "float"),
        Tensor("w", (3, 2), "float32", "float"),
        Tensor("w", (2, 3), "float64", "float"),
        Tensor("w", (2, 3), "float32", "frozen"),
    ],
)
def test_hash_binds_name_shape_dtype_and_kind(other):
    assert Layout((other,)).hash != Layout((Tensor("w", (2, 3), "float32", "float"),)).hash


def test_hash_binds_the_order():
    a, b = Tensor("a", (2,), "float32", "float"), Tensor("b", (2,), "float32", "float")
    assert Layout((a, b)).hash != Layout((b, a)).hash


# ---------------------------------------------------------------------- what a training function returned
def test_same_arrays_pass():
    Layout.of(MODEL).check(MODEL)
    Layout.of(MODEL).check(dict(reversed(MODEL.items())))  # the order of the reply does not matter


def test_float_arrays_may_come_in_another_precision():
    Layout.of(MODEL).check(MODEL | {"scale": np.zeros((), np.float32), "half": np.zeros(4, np.int32)})


def test_missing_and_unknown_arrays_are_named():
    arrays = {name: array for name, array in MODEL.items() if name != "scale"} | {"scala": np.zeros(())}
    with pytest.raises(LayoutError, match=r"The reply must hold the same arrays.*unknown: \['scala'\].*\['scale'\]"):
        Layout.of(MODEL).check(arrays)


def test_partial_accepts_missing_but_not_unknown_arrays():
    Layout.of(MODEL).check({"scale": np.zeros(())}, partial=True)
    with pytest.raises(LayoutError, match=r"The gradient must hold.*unknown: \['bias'\], missing"):
        Layout.of(MODEL).check({"bias": np.zeros(())}, what="gradient", partial=True)


@pytest.mark.parametrize("shape", [(3, 2), (6,), (2, 3, 1), ()])
def test_wrong_shape_is_named(shape):
    with pytest.raises(LayoutError, match=r"'conv.weight' of the reply has shape .*the model has \(2, 3\)"):
        Layout.of(MODEL).check(MODEL | {"conv.weight": np.zeros(shape)})


@pytest.mark.parametrize(
    ("name", "array"),
    [("bn.num_batches_tracked", np.zeros((), np.float32)), ("scale", np.zeros((), bool)), ("scale", np.array("x"))],
)
def test_wrong_kind_of_numbers_is_named(name, array):
    with pytest.raises(LayoutError, match=rf"'{name}' of the reply has dtype {array.dtype}"):
        Layout.of(MODEL).check(MODEL | {name: array})


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_names_array_and_index(bad):
    weight = np.zeros((2, 3), np.float32)
    weight[1, 2] = bad
    with pytest.raises(NonFiniteError, match=r"'conv.weight' of the reply holds NaN or infinity at index \(1, 2\)"):
        Layout.of(MODEL).check(MODEL | {"conv.weight": weight})


def test_non_finite_scalar():
    with pytest.raises(CodecError, match=r"at index \(\); nothing was sent. Lower the learning rate"):
        check_finite("scale", np.array(np.nan), "update")
