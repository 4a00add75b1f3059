"""Measuring: the machine's peaks, kernels against them, and planish against other engines."""
