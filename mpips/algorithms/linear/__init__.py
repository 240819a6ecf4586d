"""Sparse logistic regression: an online solver, and a batch solver for the L1 problem."""

from mpips.algorithms.linear.block import solve
from mpips.algorithms.linear.online import LogisticRegression, train, watch

__all__ = ["LogisticRegression", "solve", "train", "watch"]
