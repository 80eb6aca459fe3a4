"""torchvision beside a CPU build of torch: declared operators where they are needed, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from flbc.demo import torchvision_cpu
from flbc.errors import DependencyError

pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(find_spec("torchvision") is None, reason="torchvision is not installed")

_TELL = "; import torchvision; print(torchvision.extension._has_ops(), declare_operators() is None)"


def python(code: str) -> list[str]:
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.split()


def test_importing_works_and_declares_only_what_is_missing() -> None:
    own, nothing = python(
        "from flbc.demo.torchvision_cpu import datasets, declare_operators; "
        f"assert datasets().MNIST and datasets().CIFAR10{_TELL}"
    )
    # Either torchvision's own operators loaded, or we declared them; never both.
    import torch

    assert torch.version.cuda is not None or own == nothing


def test_data_sets_transforms_and_a_model_work() -> None:
    code = (
        "from flbc.demo.torchvision_cpu import datasets; import torch; torch.set_num_threads(1); "
        "fake = datasets().FakeData(2, (3, 8, 8)); from torchvision.transforms import ToTensor; "
        "print(tuple(ToTensor()(fake[0][0]).shape))"
    )
    assert python(code) == ["(3,", "8,", "8)"]


@pytest.mark.parametrize(
    "before",
    [
        "torch.version.cuda = '12.8'",  # a build with CUDA brings its own
        "sys.modules['torchvision'] = types.ModuleType('torchvision')",  # imported already, so it could be
    ],
)
def test_nothing_is_declared_where_it_is_not_needed(before: str) -> None:
    code = (
        f"import sys, types, torch; {before}; from flbc.demo.torchvision_cpu import declare_operators; "
        "print(declare_operators(), hasattr(torch.ops.torchvision, 'nms'))"
    )
    assert python(code) == ["None", "False"]


def test_operators_that_are_there_are_left_alone() -> None:
    """Declaring them twice would raise."""
    code = (
        "import torch; theirs = torch.library.Library('torchvision', 'DEF'); "
        "schema = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'; "
        "theirs.define('nms' + schema); theirs.define('qnms' + schema); "
        "from flbc.demo.torchvision_cpu import datasets, declare_operators; "
        "datasets(); print(declare_operators())"
    )
    assert python(code) == ["None"]


def test_without_torchvision_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision_cpu, "declare_operators", lambda: None)
    for name in ("torchvision", "torchvision.datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DependencyError, match=r"flbc\[torch,demo\]"):
        torchvision_cpu.datasets()


def test_the_module_itself_loads_nothing() -> None:
    assert python("import sys, flbc.demo.torchvision_cpu; print({'torch', 'torchvision'} & set(sys.modules))") == [
        "set()"
    ]
