"""Gradient descent on weights that several threads share, and what has become of them since servers last heard."""

from numba import njit


@njit(nogil=True, cache=True)
def descend(weights, velocity, gradient, rate, momentum, decay):
    """v ← momentum·v − rate·(gradient + decay·w); w ← w + v, in place, on flat arrays; without a lock, whoever else
    does the same at once (Niu et al. 2011).
    """
    kind = weights.dtype.type
    rate, momentum, decay = kind(rate), kind(momentum), kind(decay)
    for i in range(weights.size):
        step = momentum * velocity[i] - rate * (gradient[i] + decay * weights[i])
        velocity[i] = step
        weights[i] += step


@njit(nogil=True, cache=True)
def depart(weights, known, update):
    """What has been added to the weights since `known` into `update`; then that is known, too."""
    for i in range(weights.size):
        now = weights[i]
        update[i] = now - known[i]
        known[i] = now


@njit(nogil=True, cache=True)
def remember(weights, known):
    """What the weights are is known."""
    for i in range(weights.size):
        known[i] = weights[i]


@njit(nogil=True, cache=True)
def meet(weights, known, pulled):
    """Add to the weights what others have added to `pulled` since it was `known`; then that is known."""
    for i in range(weights.size):
        weights[i] += pulled[i] - known[i]
        known[i] = pulled[i]
