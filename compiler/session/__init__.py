"""onnxruntime's Python interface on planish: a script changes its import and nothing else."""
