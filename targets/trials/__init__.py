"""planish.targets.trials: kernels as libraries of their own, and running them on other machines."""
