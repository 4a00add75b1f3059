"""Options of sessions and runs as onnxruntime has them, and which of them have an effect."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any

from planish.ir.errors import PlanishError, UnsupportedModel

PROVIDER = "CPUExecutionProvider"


class GraphOptimizationLevel(IntEnum):
    """Accepted, without effect: planish always optimises."""

    ORT_DISABLE_ALL = 0
    ORT_ENABLE_BASIC = 1
    ORT_ENABLE_EXTENDED = 2
    ORT_ENABLE_LAYOUT = 3
    ORT_ENABLE_ALL = 99


class ExecutionMode(IntEnum):
    """Accepted, without effect: planish decided when compiling which kernels run side by side."""

    ORT_SEQUENTIAL = 0
    ORT_PARALLEL = 1


class ExecutionOrder(IntEnum):
    """Accepted, without effect: the order is compiled in."""

    DEFAULT = 0
    PRIORITY_BASED = 1
    MEMORY_EFFICIENT = 2


#: Attributes of SessionOptions with onnxruntime's defaults.
_DEFAULTS: dict[str, Any] = {
    "enable_cpu_mem_arena": True,
    "enable_mem_pattern": True,
    "enable_mem_reuse": True,
    "enable_profiling": False,
    "execution_mode": ExecutionMode.ORT_SEQUENTIAL,
    "execution_order": ExecutionOrder.DEFAULT,
    "graph_optimization_level": GraphOptimizationLevel.ORT_ENABLE_ALL,
    "inter_op_num_threads": 0,
    "intra_op_num_threads": 0,
    "log_severity_level": -1,
    "log_verbosity_level": 0,
    "logid": "",
    "optimized_model_filepath": "",
    "profile_file_prefix": "onnxruntime_profile_",
    "use_deterministic_compute": False,
    "use_per_session_threads": True,
}

#: Those that count, or for which there is nothing to tell: planish writes no log.
_QUIET = {"intra_op_num_threads", "log_severity_level", "log_verbosity_level", "logid"}

#: Config entries of planish's own: name → default.
_ENTRIES = {"planish.verify": "1", "planish.cached_shapes": "8"}


class SessionOptions:
    """onnxruntime's options of a session.

    `intra_op_num_threads` and `add_free_dimension_override_by_name` count, and these entries of
    `add_session_config_entry`: "planish.verify" ("0": what is compiled is not compared with another
    implementation) and "planish.cached_shapes" (how many input shapes stay compiled). The rest is
    accepted, and a session tells by one warning which of it has no effect.
    """

    def __init__(self) -> None:
        self._values = dict(_DEFAULTS)
        self._entries: dict[str, str] = {}
        self._dims: dict[str, int] = {}
        self._providers: list[str] = []

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_values"][name]
        except KeyError:
            raise AttributeError(f"SessionOptions has no attribute '{name}'") from None

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        elif name in _DEFAULTS:
            self._values[name] = value
        else:
            raise AttributeError(f"SessionOptions has no attribute '{name}'")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_DEFAULTS})

    def __repr__(self) -> str:
        changed = {k: v for k, v in self._values.items() if v != _DEFAULTS[k]}
        return f"<planish.SessionOptions {changed}>"

    def add_session_config_entry(self, key: str, value: str) -> None:
        """Set an entry; of planish's own, "planish.verify" and "planish.cached_shapes" count."""
        if key.startswith("planish.") and (key not in _ENTRIES or not value.isdecimal()):
            known = ", ".join(_ENTRIES)
            raise PlanishError(f"'{key}' = '{value}': entries with a number are {known}")
        self._entries[key] = value

    def get_session_config_entry(self, key: str) -> str:
        """Give an entry that was set. Raises PlanishError for any other."""
        if key not in self._entries:
            raise PlanishError(f"the session options have no entry '{key}'")
        return self._entries[key]

    def add_free_dimension_override_by_name(self, name: str, size: int) -> None:
        """Fix a symbolic dimension of the model."""
        self._dims[name] = int(size)

    def add_provider(self, name: str, options: Mapping[str, str] | None = None) -> None:
        """Accepted, without effect: planish runs on the CPU."""
        self._providers.append(name)

    def has_providers(self) -> bool:
        """Whether add_provider was called."""
        return bool(self._providers)

    def register_custom_ops_library(self, path: str) -> None:
        """Raises UnsupportedModel: planish's custom ops are given to planish.compile."""
        raise UnsupportedModel(
            f"'{path}' is a library of onnxruntime's; planish takes custom ops as "
            "planish.compile(…, ops=[…]), see docs/add-an-op.md"
        )

    def add_initializer(self, name: str, value: object) -> None:
        """Raises UnsupportedModel: weights are those of the model."""
        raise UnsupportedModel(
            f"initializer '{name}' cannot be replaced; give a model that holds its weights, "
            "as bytes or as a file"
        )

    @property
    def threads(self) -> int | None:
        """What intra_op_num_threads asks for; None where it leaves it open."""
        return int(self._values["intra_op_num_threads"]) or None

    @property
    def verify(self) -> bool:
        """What the entry "planish.verify" says."""
        return self._number("planish.verify") != 0

    @property
    def cached_shapes(self) -> int:
        """What the entry "planish.cached_shapes" says, at least 1."""
        return max(1, self._number("planish.cached_shapes"))

    @property
    def dims(self) -> Mapping[str, int]:
        """Symbolic dimensions that are fixed."""
        return self._dims

    def _number(self, entry: str) -> int:
        return int(self._entries.get(entry, _ENTRIES[entry]))

    def ignored(self) -> Iterator[str]:
        """Tell what was set and has no effect."""
        for name, value in self._values.items():
            if name not in _QUIET and value != _DEFAULTS[name]:
                yield f"{name}={value}"
        yield from (key for key in self._entries if key not in _ENTRIES)
        yield from (name for name in self._providers if name != PROVIDER)


class RunOptions:
    """onnxruntime's options of a run, accepted without effect: planish has nothing to choose."""

    def __init__(self) -> None:
        self.log_severity_level = -1
        self.log_verbosity_level = 0
        self.logid = ""
        self.only_execute_path_to_fetches = False
        self.terminate = False
        self._entries: dict[str, str] = {}

    def add_run_config_entry(self, key: str, value: str) -> None:
        """Set an entry."""
        self._entries[key] = value

    def get_run_config_entry(self, key: str) -> str:
        """Give an entry that was set; "" for any other."""
        return self._entries.get(key, "")


def get_available_providers() -> list[str]:
    """Give the one provider there is: planish compiles for the CPU."""
    return [PROVIDER]


def get_all_providers() -> list[str]:
    """Give the same as get_available_providers."""
    return [PROVIDER]


def get_device() -> str:
    """Give "CPU"."""
    return "CPU"


def set_default_logger_severity(severity: int) -> None:
    """Accepted, without effect: planish writes no log."""


def set_default_logger_verbosity(verbosity: int) -> None:
    """Accepted, without effect: planish writes no log."""


def set_seed(seed: int) -> None:
    """Accepted, without effect: planish compiles no random ops."""


def disable_telemetry_events() -> None:
    """Accepted, without effect: planish has no telemetry."""


def enable_telemetry_events() -> None:
    """Accepted, without effect: planish has no telemetry."""


def tell_ignored(options: SessionOptions, others: Sequence[str], stacklevel: int) -> None:
    """Warn once of everything that a session was given and that has no effect."""
    told = [*options.ignored(), *others]
    if told:
        warnings.warn(
            f"planish runs on the CPU, with options of its own; without effect: {', '.join(told)}",
            UserWarning,
            stacklevel=stacklevel + 1,
        )


def provider_names(providers: Sequence[Any] | None) -> list[str]:
    """Give the names among providers that are names, or pairs of a name and options."""
    names = [given if isinstance(given, str) else given[0] for given in providers or ()]
    if not all(isinstance(name, str) for name in names):
        raise PlanishError(f"providers is {providers!r}, expected names or (name, options) pairs")
    return names
