"""planish's loader alone: runs compiled artefacts with numpy and the standard library.

import planish_runtime as planish

y = planish.load("model.planish")(x)
"""

from importlib.metadata import version

from planish.artefact.format import KernelInfo, TensorInfo
from planish.artefact.loading import Model, load
from planish.ir.errors import ArtefactError, PlanishError, TensorError

__version__ = version("planish-runtime")

__all__ = [
    "ArtefactError",
    "KernelInfo",
    "Model",
    "PlanishError",
    "TensorError",
    "TensorInfo",
    "load",
]
