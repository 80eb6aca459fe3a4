"""Sum of clipped per-example gradients: what keeps the sensitivity of the example unit true.

The guarantee is for "zero-out" neighbours: one record of one client is replaced by a null record, whose gradient is
zero; the sizes of the data sets are public constants (:mod:`flbc.privacy`). Replacing a record by a null one moves the
sum by at most ``clip_norm`` in L2, over all trainable parameters together. Per-example gradients come from Opacus
(Yousefpour et al. 2021, *Opacus: User-Friendly Differential Privacy Library in PyTorch*); norms, clipping and summing
happen in float64.

It rests on each example's gradient depending on that example alone. Layers that mix examples are refused as far as they
can be recognised (BatchNorm, and whatever Opacus's ModuleValidator knows); a home-made layer that mixes them cannot be,
except by ``max_batch=1``. So must everything before the model: preprocessing works record by record with public
constants, and a record may not decide whether an exception is raised (a non-finite gradient counts as zero here).

Not protected: the running time, which depends on the number of examples, and whatever else the training function
returns, such as a loss.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DependencyError, PrivacyConfigError
from .spec import require_count, require_positive

if TYPE_CHECKING:
    from torch import Tensor, nn

EXAMPLE_HEADROOM = 1 - 2.0**-20
"""Examples are clipped to ``clip_norm`` times this. Two float64 sums of n vectors of norm c differ from the exact ones
by at most 2 n² 2**-53 c in L2, which the headroom covers for n up to 65,536 examples per call, in any order."""


def clipped_gradient_sum(
    model: nn.Module,
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    batch: tuple[Tensor, Tensor],
    clip_norm: float,
    *,
    max_batch: int = 64,
) -> dict[str, NDArray[np.float64]]:
    """Clip every example's gradient over all trainable parameters to ``clip_norm``, and add them up.

    Parameters
    ----------
    model : torch.nn.Module
        Left as it was found: parameters, ``.grad``, modes and hooks. It is run in training mode.
    loss_fn : callable
        ``loss_fn(outputs, targets)`` returns one loss per example, shape (B,): use ``reduction="none"``.
    batch : tuple of Tensor
        ``(inputs, targets)``, both of first dimension B, on the model's device. B may be 0 (an empty Poisson sample).
    clip_norm : float
        L2 norm, in parameter units.
    max_batch : int (default: 64)
        Examples whose gradients are held at once; memory is ``max_batch`` times the model. It does not change the
        result beyond float rounding.

    Returns
    -------
    dict of str to ndarray of float64
        One array per *trainable* parameter, keyed by its name in ``state_dict()``; frozen parameters and buffers are
        absent (they do not move), and so is the second name of a shared parameter. Zeros for an empty batch.

    Raises
    ------
    PrivacyConfigError
        If the model has layers that mix examples or nothing to train, the losses are not per example, inputs and
        targets do not match, or ``clip_norm`` is out of range.
    DependencyError
        If torch or Opacus is not installed.
    """
    torch, opacus = _import_torch()
    require_positive("clip_norm", clip_norm, "an L2 norm in parameter units, for example 1.0")
    require_count("max_batch", max_batch)
    inputs, targets = batch
    if len(inputs) != len(targets):
        raise PrivacyConfigError(f"the batch has {len(inputs)} inputs but {len(targets)} targets: pass one per example")
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise PrivacyConfigError("the model has no trainable parameter: set requires_grad on those that should train")
    total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in parameters.items()}
    with _per_example(model, parameters, opacus) as run, torch.enable_grad():
        for start in range(0, len(inputs), max_batch):
            part = slice(start, start + max_batch)
            losses = loss_fn(run(inputs[part]), targets[part])
            size = len(inputs[part])
            if tuple(losses.shape) != (size,):
                raise PrivacyConfigError(
                    f"loss_fn returned shape {tuple(losses.shape)} for {size} examples: it must return one loss per "
                    'example, shape (B,); pass reduction="none" and average over any further dimensions'
                )
            with warnings.catch_warnings():
                # Opacus hooks the first layer, whose input needs no gradient; torch warns, and it is as intended.
                warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
                total_loss: Any = losses.sum()
                total_loss.backward()
            _add_clipped(total, parameters, size, clip_norm * EXAMPLE_HEADROOM, torch)
    return {name: value.cpu().numpy() for name, value in total.items()}


def _add_clipped(total: dict[str, Any], parameters: dict[str, Any], size: int, limit: float, torch: Any) -> None:
    """Clip the examples' gradients that the last backward pass left, add them to ``total``, and drop them."""
    rows = {}
    for name, p in parameters.items():
        if p.grad_sample is not None:  # None: the parameter was not used
            rows[name] = p.grad_sample.detach().reshape(size, -1).to(torch.float64)
        p.grad_sample = None
        p.grad = None
    squared = torch.zeros(size, dtype=torch.float64, device=next(iter(parameters.values())).device)
    for row in rows.values():
        squared += row.square().sum(dim=1)
    # Any NaN or infinity in an example's gradient shows in its norm; such an example counts as zero (its rows are
    # replaced before the product, because 0 * NaN is NaN).
    usable = torch.isfinite(squared)
    factor = torch.where(usable, (limit / squared.sqrt()).clamp(max=1.0), 0.0)
    for name, row in rows.items():
        clean = torch.where(usable[:, None], row, 0.0)
        total[name] += (factor @ clean).reshape(total[name].shape)


@contextmanager
def _per_example(model: Any, parameters: dict[str, Any], opacus: Any) -> Iterator[Any]:
    """Hook ``model`` so that a backward pass leaves ``grad_sample``; afterwards undo every trace of it."""
    if hasattr(model, "autograd_grad_sample_hooks"):
        raise PrivacyConfigError("the model is already hooked by Opacus: pass the plain model, not a GradSampleModule")
    modes = {module: module.training for module in model.modules()}
    grads = {p: p.grad for p in model.parameters()}
    hooked = None
    try:
        model.train()  # Opacus records nothing in evaluation mode
        _refuse_mixing(model, opacus)
        hooked = opacus.GradSampleModule(model, batch_first=True, loss_reduction="sum")
        for p in parameters.values():
            p.grad = None
        yield hooked
    finally:
        if hooked is not None:
            hooked._close()
        for module, mode in modes.items():
            module.training = mode
            for leftover in ("activations", "max_batch_len"):  # after an exception between forward and backward
                if hasattr(module, leftover):
                    delattr(module, leftover)
        for p, grad in grads.items():
            p.grad = grad
            for leftover in ("grad_sample", "_forward_counter", "_current_grad_sample"):
                if hasattr(p, leftover):
                    delattr(p, leftover)


def _refuse_mixing(model: Any, opacus: Any) -> None:
    """Refuse layers in which one example's output depends on the others of its batch."""
    import torch

    # Opacus looks at trainable layers only; BatchNorm without affine parameters mixes examples all the same.
    norms = [name for name, m in model.named_modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    if norms:
        raise PrivacyConfigError(
            f"layers {norms} are BatchNorm: they mix the examples of a batch, so no example's gradient can be bounded. "
            "Use GroupNorm (opacus.validators.ModuleValidator.fix(model) replaces them)"
        )
    errors = opacus.ModuleValidator.validate(model, strict=False)
    if errors:
        raise PrivacyConfigError(
            "per-example gradients are not defined for this model: " + "; ".join(str(error) for error in errors)
        )


def _import_torch() -> tuple[Any, Any]:
    """Import torch and the two names of Opacus that are needed, on first use."""
    try:
        import torch
        from opacus.grad_sample import GradSampleModule
        from opacus.validators import ModuleValidator
    except ImportError as error:
        raise DependencyError(
            f"per-example privacy needs torch and Opacus, and {error.name or 'one of them'} is missing: "
            'pip install "flbc[torch]"'
        ) from error
    from types import SimpleNamespace

    return torch, SimpleNamespace(GradSampleModule=GradSampleModule, ModuleValidator=ModuleValidator)
