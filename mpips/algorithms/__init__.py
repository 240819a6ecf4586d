"""Algorithms: mathematics, and the order of pushes and pulls; nothing about ranks, MPI, failures or files."""
