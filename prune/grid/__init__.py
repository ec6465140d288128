"""Kernels of every kind side by side."""
