"""The network of ``benchmarks/verification.py`` on SPU: started by it, in an interpreter that has SPU.

    python benchmarks/verification_peer.py INPUTS.npz TURNS

Three parties of ABY3 as threads on 64 bits. Weights, samples and labels are secret; how many samples are right is
opened. Prints a line of JSON for each pool: seconds and processor seconds of the turns, and what was opened. Compiling
is not timed. It needs neither PyTorch nor flbc.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import spu
import spu.utils.frontend as frontend
from jax import lax
from spu.utils.simulation import Simulator

#: By how much the right logit must lead.
LEAD = 2.0**-10


def convolve(x: Any, weight: Any, bias: Any) -> Any:
    order = ("NHWC", "HWIO", "NHWC")  # channels last, with which SPU takes four fifths of the time
    return lax.conv_general_dilated(x, weight.transpose(2, 3, 1, 0), (1, 1), "SAME", dimension_numbers=order) + bias


def pooled(x: Any, pool: str) -> Any:
    places = [x[:, i::2, j::2] for i in range(2) for j in range(2)]
    if pool == "avg":
        return sum(places) * 0.25
    return jnp.maximum(jnp.maximum(places[0], places[1]), jnp.maximum(places[2], places[3]))


def block(x: Any, weight: Any, bias: Any, pool: str) -> Any:
    """The largest value first, then what is negative becomes 0: a quarter of the comparisons, as flbc does it."""
    x = convolve(x, weight, bias)
    zero = jnp.zeros((), x.dtype)
    return jnp.maximum(pooled(x, pool), zero) if pool == "max" else pooled(jnp.maximum(x, zero), pool)


def counting(pool: str) -> Any:
    def count(w1: Any, b1: Any, w2: Any, b2: Any, w3: Any, b3: Any, x: Any, labels: Any) -> Any:
        x = block(block(x.transpose(0, 2, 3, 1), w1, b1, pool), w2, b2, pool)
        logits = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1) @ w3.T + b3
        right = (logits * labels).sum(1, keepdims=True)
        return jnp.all(right - logits >= LEAD * (1 - labels), axis=1).astype(jnp.int32).sum()

    return count


def main() -> None:
    data, turns = np.load(sys.argv[1]), int(sys.argv[2])
    jax.config.update("jax_platforms", "cpu")
    names = [f"in{place}" for place in range(8)]
    for pool in ("max", "avg"):
        values = [data[f"{pool}{place}"] for place in range(8)]
        simulator = Simulator.simple(3, spu.ProtocolKind.ABY3, spu.FieldType.FM64)
        secret = [spu.Visibility.VIS_SECRET] * len(values)
        program, _ = frontend.compile(
            frontend.Kind.JAX,
            counting(pool),
            values,
            {},
            names,
            secret,
            lambda out: [f"out{i}" for i in range(len(out))],
        )
        walls, processors = [], []
        for _ in range(turns):
            wall, processor = time.perf_counter(), time.process_time()
            opened = simulator(program, *values)
            walls.append(time.perf_counter() - wall)
            processors.append(time.process_time() - processor)
        print(json.dumps({"pool": pool, "wall": walls, "processor": processors, "right": int(opened[0])}), flush=True)


if __name__ == "__main__":
    main()
