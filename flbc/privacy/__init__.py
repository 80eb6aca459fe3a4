"""Differential privacy for opened sums: what is promised, how much noise that takes, and the noise itself.

**What is promised.** The integers that a scheme opens, over all rounds of a task, are (epsilon, delta)-differentially
private for the *unit* of protection. Sampling is counted only where it is secret and random: examples that a node draws
for itself (``sampling_rate``, :mod:`flbc.privacy.sampling`), never clients that a server chooses:

* ``unit="example"``: two data sets are neighbours when one record is replaced by a null record whose gradient is zero
  ("zero-out" adjacency; Ponomareva et al. 2023, *How to DP-fy ML*, §2.1). The sizes of the hospitals' data sets are
  public constants. A record is a patient only where one row of the data is one patient.
* ``unit="client"``: neighbours differ in one client's whole update, which is replaced by the zero vector.

The stricter replace-one numbers (one record or update exchanged for *any* other) are available beside them.

**What is not promised.** With ``where="opener"`` the guarantee does not hold against whoever opens the sum, who adds
the noise and sees the sum without it. With ``where="clients"`` nobody sees it so; the guarantee then holds as long as
no more than ``colluders`` of the clients that survive a round work with the server or leave out their share of the
noise. With ``where="local"`` every client's own vector is private, whoever opens it, and the sum carries far more
noise. Nothing outside the sum is covered: metrics, weights, timings and logs that travel in clear, and hyper-parameters
that were tuned on the same data. A dishonest *server* is held off by the nodes' own policy and by the opener's budget;
a dishonest *client* can spoil accuracy; it weakens the protection of the others only as one of these colluders.

How a number of integers becomes a guarantee: :mod:`flbc.privacy.spec` (what the user asks for),
:mod:`flbc.privacy.sensitivity` (what the codec guarantees), :mod:`flbc.privacy.mechanism` (that times the noise
multiplier), :mod:`flbc.privacy.budget` over :mod:`flbc.privacy.accountant` (exact composition) and
:mod:`flbc.privacy.subsampled` (Poisson samples), :mod:`flbc.privacy.noise` and :mod:`flbc.privacy.opendp` (drawing
noise), both for noise that clients share in :mod:`flbc.privacy.distributed` and :mod:`flbc.privacy.discrete`,
:mod:`flbc.privacy.clipping`, :mod:`flbc.privacy.gradients` and :mod:`flbc.privacy.sampling` (what keeps the sensitivity
and the rate true).

Importing this package loads neither torch, Opacus nor scipy: Flower starts a process per message.
"""

from .clipping import clip_update
from .gradients import clipped_gradient_sum
from .mechanism import GaussianMechanism, plan
from .sampling import poisson_sample
from .spec import Privacy

__all__ = ["GaussianMechanism", "Privacy", "clip_update", "clipped_gradient_sum", "plan", "poisson_sample"]
