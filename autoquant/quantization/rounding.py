"""Integers of a weight whose rounding errors make up for one another on what its layer reads.

GPTQ: Frantar et al. 2022, arXiv:2210.17323, the rule of Optimal Brain Quantization, Frantar and Alistarh 2022,
arXiv:2208.11580: inputs are rounded one after the other, and what the error of one does to the result is taken up by
those that are left. With H = L L^T the second moment of the inputs, an error e of a row costs |L^T e|^2; so the best
that input j can do about the errors behind it is to round w_j + sum of L_kj / L_jj e_k over k > j. These are the same
integers as those that updates of the inverse of H lead to, without an inverse.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular

from autoquant.array import Array
from autoquant.threads import one_blas_thread

DAMPING = 0.01
"""What is added to the diagonal of a moment, relative to its mean, so that few samples do not decide: GPTQ's choice."""
BLOCK, BY_SAMPLES = 32, 128
"""Inputs that are rounded before all others are told of their errors, in one product of matrices; more where each block
takes a decomposition of the square of the samples."""
FEW = 4
"""Where inputs are so many times as many as samples, what takes the square of the samples takes less."""


@one_blas_thread()
def compensated(weight: Array, scales: Array, moment: Array, *, lowest: int, highest: int) -> Array:
    """The integers of rows of a weight, int8 from `lowest` to `highest`, that make up for their errors.

    `weight` (..., rows, inputs) has a scale for each row, `scales` (..., rows), and a second moment for all of them,
    `moment` (..., inputs, inputs): symmetric, with no negative eigenvalue. Inputs are rounded in the order of their
    mean squares, largest first (GPTQ's act-order). A row that would be no better for it is rounded to nearest, so that
    e^T moment e is never more than with that. Raises ValueError where anything is not finite.
    """
    steps, nearest = _steps(weight, scales, moment, lowest, highest)
    order = np.argsort(np.diagonal(moment, axis1=-2, axis2=-1), axis=-1, kind="stable")  # the last is rounded first
    columns = np.take_along_axis(steps, order[..., None, :], -1)
    rounded = _one_after_the_other(columns, _couplings(moment, order), lowest, highest)
    chosen = np.empty_like(rounded)
    np.put_along_axis(chosen, order[..., None, :], rounded, -1)
    # e^T H e of the chosen errors less that of the others is (a - b)^T H (a + b), one product.
    apart, together = nearest - chosen, 2.0 * steps - chosen - nearest
    worse = np.einsum("...ij,...ij->...i", apart @ moment, together) >= 0.0
    return np.where(worse[..., None], nearest, chosen).astype(np.int8)


@one_blas_thread()
def compensated_by_samples(weight: Array, scales: Array, samples: Array, *, lowest: int, highest: int) -> Array:
    """The same integers for `samples` (..., samples, inputs), whose second moment is samples^T samples.

    In the memory, and the time, of the squares of samples, not of inputs: for few samples. Raises as `compensated`.
    """
    steps, nearest = _steps(weight, scales, samples, lowest, highest)
    found = np.empty(steps.shape, np.int8)
    rows, inputs = steps.shape[-2:]
    stacks = (one.reshape(-1, rows, inputs) for one in (found, steps, nearest))
    for own, wanted, plain, seen in zip(*stacks, samples.reshape(-1, *samples.shape[-2:]), strict=True):
        squares = np.square(seen).sum(axis=0)
        order = np.argsort(squares, kind="stable")
        damping = DAMPING * float(squares.mean()) or 1.0
        chosen = np.empty_like(wanted)
        chosen[:, order] = _by_samples(wanted[:, order], seen[:, order], damping, lowest, highest)
        left, was = (np.square((wanted - integers) @ seen.T).sum(axis=1) for integers in (chosen, plain))
        own[:] = np.where((left < was)[:, None], chosen, plain)
    return found


def _steps(weight: Array, scales: Array, seen: Array, lowest: int, highest: int) -> tuple[Array, Array]:
    """The weight in steps of its scales, and that rounded to nearest. Raises ValueError."""
    if not (np.isfinite(weight).all() and np.isfinite(seen).all() and (scales > 0.0).all()):
        raise ValueError("weights and moments must be finite, and scales above 0")
    steps = weight.astype(np.float64) / scales.astype(np.float64)[..., None]
    return steps, np.clip(np.rint(steps), lowest, highest)


def _by_samples(steps: Array, samples: Array, damping: float, lowest: int, highest: int) -> Array:
    """As `_one_after_the_other`, for samples X of inputs in this order.

    L_kj / L_jj is S_kj / S_jj of H's Schur complement S once the inputs F in front of j are eliminated. With H = X^T X
    + d I that is x_k^T P x_j, and d more where k is j, of P = d (d I + X_F X_F^T)^-1 (Woodbury): of all inputs behind
    it is enough to know the sum of their errors times what they were in each sample.
    """
    wanted = np.ascontiguousarray(steps.T)
    chosen = np.empty_like(wanted)
    front = samples @ samples.T
    front.reshape(-1)[:: len(front) + 1] += damping
    behind = np.zeros((len(samples), wanted.shape[1]))
    for stop in range(len(wanted), 0, -BY_SAMPLES):
        start = max(stop - BY_SAMPLES, 0)
        own, block = samples[:, start:stop], wanted[start:stop].copy()
        front -= own @ own.T
        seen = damping * cho_solve((cholesky(front, lower=True, check_finite=False), True), own, check_finite=False)
        inner = own.T @ seen
        inner.reshape(-1)[:: len(inner) + 1] += damping
        lower = cholesky(inner, lower=True, check_finite=False)
        diagonal = lower.diagonal()[:, None]
        block += solve_triangular(lower, seen.T @ behind, lower=True, check_finite=False) / diagonal
        couplings = lower / diagonal.T
        chosen[start:stop], errors = _rounded(block, wanted[start:stop], couplings, lowest, highest)
        behind += own @ errors
    return chosen.T


def _couplings(moment: Array, order: Array) -> Array:
    """L_kj / L_jj of the damped moment, its inputs in this order, in the memory of one moment more."""
    inputs, lower = moment.shape[-1], np.empty(moment.shape)
    squares = (one.reshape(-1, inputs, inputs) for one in (lower, moment))
    for own, given, places in zip(*squares, order.reshape(-1, inputs), strict=True):
        for start in range(0, inputs, BLOCK):
            own[start : start + BLOCK] = given[places[start : start + BLOCK]][:, places]
        damping = DAMPING * float(own.diagonal().mean())
        own.reshape(-1)[:: inputs + 1] += damping if damping > 0.0 else 1.0  # without any input all are alike
        # Its transpose, which is the same, is in LAPACK's order, so that nothing is copied.
        own[:] = cholesky(own.T, lower=True, overwrite_a=True, check_finite=False).T
        own /= own.diagonal()[:, None].copy()
    return np.swapaxes(lower, -1, -2)


def _one_after_the_other(steps: Array, couplings: Array, lowest: int, highest: int) -> Array:
    """Round the last input, then the one before it with what it can do about that one's error, up to the first."""
    wanted = np.ascontiguousarray(np.swapaxes(steps, -1, -2))  # an input of all rows lies together
    errors, chosen = np.empty_like(wanted), np.empty_like(wanted)
    for stop in range(wanted.shape[-2], 0, -BLOCK):
        start = max(stop - BLOCK, 0)
        block = wanted[..., start:stop, :].copy()
        block += np.swapaxes(couplings[..., stop:, start:stop], -1, -2) @ errors[..., stop:, :]
        own = slice(start, stop)
        rounded = _rounded(block, wanted[..., own, :], couplings[..., own, own], lowest, highest)
        chosen[..., own, :], errors[..., own, :] = rounded
    return np.swapaxes(chosen, -1, -2)


def _rounded(block: Array, wanted: Array, couplings: Array, lowest: int, highest: int) -> tuple[Array, Array]:
    """The integers of a block of inputs, (..., inputs, rows), from the last one on, and their errors; changes `block`.

    Limits are kept without np.clip, which takes as long for few values as all else.
    """
    chosen, errors = np.empty_like(block), np.empty_like(block)
    for place in reversed(range(block.shape[-2])):
        integers = np.rint(block[..., place, :])
        np.minimum(np.maximum(integers, lowest, out=integers), highest, out=integers)
        error = wanted[..., place, :] - integers
        block[..., :place, :] += couplings[..., place, :place, None] * error[..., None, :]
        chosen[..., place, :], errors[..., place, :] = integers, error
    return chosen, errors
