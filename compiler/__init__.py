"""planish: an ONNX compiler and graph optimiser whose artefacts stand alone.

    report = planish.compile("model.onnx", "model.planish")
    outputs = planish.load("model.planish").run({"input": array})

Names are imported when they are first used: `load` needs numpy and the standard library only, and
must not wait for the compiler's imports.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from planish.artefact.format import KernelInfo as KernelInfo
    from planish.artefact.format import Manifest as Manifest
    from planish.artefact.format import TensorInfo as TensorInfo
    from planish.artefact.loading import Model as Model
    from planish.artefact.loading import load as load
    from planish.autotune.apply_log import LogReport as LogReport
    from planish.autotune.search.budget import Budget as Budget
    from planish.bisection.search import Finding as Finding
    from planish.bisection.search import bisect as bisect
    from planish.custom import place as place
    from planish.driver import Compilation as Compilation
    from planish.driver import CompileReport as CompileReport
    from planish.driver import compile as compile
    from planish.ir.errors import ArtefactError as ArtefactError
    from planish.ir.errors import CustomPassError as CustomPassError
    from planish.ir.errors import InvalidGraph as InvalidGraph
    from planish.ir.errors import InvalidModel as InvalidModel
    from planish.ir.errors import PassError as PassError
    from planish.ir.errors import PlanishError as PlanishError
    from planish.ir.errors import PlanishNote as PlanishNote
    from planish.ir.errors import ScheduleError as ScheduleError
    from planish.ir.errors import TargetError as TargetError
    from planish.ir.errors import TensorError as TensorError
    from planish.ir.errors import TuningError as TuningError
    from planish.ir.errors import UnsupportedModel as UnsupportedModel
    from planish.ir.extension import CustomOp as CustomOp
    from planish.ir.graph import Graph as Graph
    from planish.ir.onnx import import_model as import_model
    from planish.ir.target import Target as Target
    from planish.passes.local_pass import local_pass as local_pass
    from planish.passes.pass_ import Step as Step
    from planish.passes.rewrite import Refusal as Refusal
    from planish.passes.rewrite import Rule as Rule
    from planish.session.inference import InferenceSession as InferenceSession
    from planish.session.options import ExecutionMode as ExecutionMode
    from planish.session.options import ExecutionOrder as ExecutionOrder
    from planish.session.options import GraphOptimizationLevel as GraphOptimizationLevel
    from planish.session.options import RunOptions as RunOptions
    from planish.session.options import SessionOptions as SessionOptions
    from planish.session.options import disable_telemetry_events as disable_telemetry_events
    from planish.session.options import enable_telemetry_events as enable_telemetry_events
    from planish.session.options import get_all_providers as get_all_providers
    from planish.session.options import get_available_providers as get_available_providers
    from planish.session.options import get_device as get_device
    from planish.session.options import set_default_logger_severity as set_default_logger_severity
    from planish.session.options import set_default_logger_verbosity as set_default_logger_verbosity
    from planish.session.options import set_seed as set_seed
    from planish.session.values import IOBinding as IOBinding
    from planish.session.values import ModelMetadata as ModelMetadata
    from planish.session.values import NodeArg as NodeArg
    from planish.session.values import OrtValue as OrtValue
    from planish.targets.hardware import detect_host as detect_host
    from planish.targets.hardware import find_target as find_target
    from planish.torch_compiler import torch_backend as torch_backend
    from planish.tuning import TuneReport as TuneReport
    from planish.tuning import tune as tune
    from planish.verdict import Verification as Verification
    from planish.verdict import VerificationFailed as VerificationFailed

__version__ = "0.1.0"

_HOME = {
    "compile": "planish.driver",
    "Compilation": "planish.driver",
    "CompileReport": "planish.driver",
    "torch_backend": "planish.torch_compiler",
    "tune": "planish.tuning",
    "TuneReport": "planish.tuning",
    "bisect": "planish.bisection.search",
    "Finding": "planish.bisection.search",
    "place": "planish.custom",
    "local_pass": "planish.passes.local_pass",
    "CustomOp": "planish.ir.extension",
    "load": "planish.artefact.loading",
    "Model": "planish.artefact.loading",
    "import_model": "planish.ir.onnx",
    "Target": "planish.ir.target",
    "InferenceSession": "planish.session.inference",
    "ExecutionMode": "planish.session.options",
    "ExecutionOrder": "planish.session.options",
    "GraphOptimizationLevel": "planish.session.options",
    "RunOptions": "planish.session.options",
    "SessionOptions": "planish.session.options",
    "disable_telemetry_events": "planish.session.options",
    "enable_telemetry_events": "planish.session.options",
    "get_all_providers": "planish.session.options",
    "get_available_providers": "planish.session.options",
    "get_device": "planish.session.options",
    "set_default_logger_severity": "planish.session.options",
    "set_default_logger_verbosity": "planish.session.options",
    "set_seed": "planish.session.options",
    "IOBinding": "planish.session.values",
    "ModelMetadata": "planish.session.values",
    "NodeArg": "planish.session.values",
    "OrtValue": "planish.session.values",
    "detect_host": "planish.targets.hardware",
    "find_target": "planish.targets.hardware",
    "Budget": "planish.autotune.search.budget",
    "CustomPassError": "planish.ir.errors",
    "PlanishNote": "planish.ir.errors",
    "Graph": "planish.ir.graph",
    "KernelInfo": "planish.artefact.format",
    "TensorInfo": "planish.artefact.format",
    "Manifest": "planish.artefact.format",
    "LogReport": "planish.autotune.apply_log",
    "Refusal": "planish.passes.rewrite",
    "Rule": "planish.passes.rewrite",
    "Step": "planish.passes.pass_",
    "Verification": "planish.verdict",
    "VerificationFailed": "planish.verdict",
    "PlanishError": "planish.ir.errors",
    "UnsupportedModel": "planish.ir.errors",
    "InvalidModel": "planish.ir.errors",
    "InvalidGraph": "planish.ir.errors",
    "PassError": "planish.ir.errors",
    "ScheduleError": "planish.ir.errors",
    "TargetError": "planish.ir.errors",
    "TuningError": "planish.ir.errors",
    "ArtefactError": "planish.ir.errors",
    "TensorError": "planish.ir.errors",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'planish' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
