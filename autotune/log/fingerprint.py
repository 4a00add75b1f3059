"""The hardware that a measurement was taken on, and how near another one is to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import llvmlite.binding as llvm

from planish.ir.target import Target

#: How far a record can be trusted here: "exact" is the same hardware, "class" has the same features
#: and caches, "seed" is any other: it may start a search and is never applied.
Grade = Literal["exact", "class", "seed"]


@dataclass(frozen=True, slots=True)
class CpuFingerprint:
    """A CPU: who made it, what code may use of it, and its caches (bytes, as in Target).

    `features` are those that code of ours may use, not all that the CPU has: others change with the
    kernel and the hypervisor and cannot change the code. `cores` are those usable when it was
    taken. `vendor` is empty where the machine is not known, but only the kind that code is made
    for. `microarchitecture` and `name` are for people: the numbers before them say the same, and
    LLVM learns new names.
    """

    arch: str
    features: tuple[str, ...]
    l1: int
    l2: int
    l3: int
    cores: int
    vendor: str = ""
    family: str = ""
    model: str = ""
    stepping: str = ""
    microarchitecture: str = field(default="", compare=False)
    name: str = field(default="", compare=False)

    @property
    def kind(self) -> tuple[object, ...]:
        """What all CPUs of one class share."""
        return (self.arch, self.features, self.l1, self.l2, self.l3)

    @property
    def is_identified(self) -> bool:
        """True if it is of one machine, not of a kind of machines."""
        return bool(self.vendor)

    def __str__(self) -> str:
        if not self.is_identified:
            return f"any {self.arch} of these features and caches"
        names = ", ".join(filter(None, (self.name, self.microarchitecture)))
        told = f" ({names})" if names else ""
        numbers = f"{self.family}/{self.model}/{self.stepping}"
        return f"{self.vendor} {numbers}{told}, {self.cores} cores"


@dataclass(frozen=True, slots=True)
class GpuFingerprint:
    """A GPU: its chip ("NVIDIA H100 PCIe"), capability ("9.0"), clocks in MHz, `l2` in bytes."""

    chip: str
    capability: str
    sm_count: int
    l2: int
    clock_mhz: int
    memory_clock_mhz: int
    driver: str

    @property
    def kind(self) -> tuple[object, ...]:
        """What all GPUs of one class share."""
        return (self.chip, self.capability, self.sm_count, self.l2)

    @property
    def is_identified(self) -> bool:
        """True if it is of one machine, not of a kind of machines."""
        return bool(self.driver)

    def __str__(self) -> str:
        return f"{self.chip}, {self.sm_count} SMs at {self.clock_mhz} MHz, driver {self.driver}"


Fingerprint: TypeAlias = CpuFingerprint | GpuFingerprint
_TYPES: dict[str, type[Fingerprint]] = {"cpu": CpuFingerprint, "gpu": GpuFingerprint}


def grade(measured: Fingerprint, here: Fingerprint) -> Grade:
    """How far what was `measured` there can be trusted `here`."""
    if measured == here and here.is_identified:
        return "exact"
    same_kind = type(measured) is type(here) and measured.kind == here.kind
    return "class" if same_kind else "seed"


def difference(measured: Fingerprint, here: Fingerprint) -> str:
    """What differs, in words: "l2 is 1048576, here 524288; no avx512f here"; empty if nothing."""
    if type(measured) is not type(here):
        return f"measured on {measured}, this is {here}"
    told = []
    for part in dataclasses.fields(measured):
        there, ours = getattr(measured, part.name), getattr(here, part.name)
        if not part.compare or there == ours:
            continue
        if part.name == "features":
            told += _features_apart(there, ours)
        else:
            told.append(f"{part.name} is {there or 'unknown'}, here {ours or 'unknown'}")
    return "; ".join(told)


def _features_apart(there: Iterable[str], ours: Iterable[str]) -> list[str]:
    missing, more = sorted({*there} - {*ours}), sorted({*ours} - {*there})
    told = [f"no {' '.join(missing)} here"] if missing else []
    return [*told, f"no {' '.join(more)} there"] if more else told


def fingerprint_of(
    target: Target, host: Target | None, cpuinfo: Path = Path("/proc/cpuinfo")
) -> CpuFingerprint:
    """The fingerprint of what code for `target` runs on.

    It is that of this machine if the target is this machine as it was detected (`host`; other
    `cores`, which is how many threads code is made for, do not matter); else it is not identified,
    and records of that class are the nearest that a lookup can find.
    """
    kind = _of_kind(target)
    if host is None or _of_kind(host).kind != kind.kind:
        return kind
    identity = cpu_identity(target.arch, cpuinfo.read_text())
    return dataclasses.replace(
        kind,
        cores=host.cores,
        vendor=identity["vendor"],
        family=identity["family"],
        model=identity["model"],
        stepping=identity["stepping"],
        microarchitecture=llvm.get_host_cpu_name(),
        name=identity.get("name", ""),
    )


def _of_kind(target: Target) -> CpuFingerprint:
    features = tuple(sorted({*target.features, *target.matrix_units}))
    return CpuFingerprint(
        target.arch, features, target.l1, target.l2, target.l3, cores=target.cores
    )


#: Field → its key in /proc/cpuinfo. Source: Linux arch/x86/kernel/cpu/proc.c and
#: arch/arm64/kernel/cpuinfo.c, which gives the parts of MIDR_EL1.
_IDENTITY: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {
        "vendor": ("vendor_id",),
        "family": ("cpu family",),
        "model": ("model",),
        "stepping": ("stepping",),
        "name": ("model name",),
    },
    "aarch64": {
        "vendor": ("CPU implementer",),
        "family": ("CPU architecture",),
        "model": ("CPU part",),
        "stepping": ("CPU variant", "CPU revision"),
    },
}


def cpu_identity(arch: str, cpuinfo: str) -> dict[str, str]:
    """Vendor, family, model, stepping and name by the text of /proc/cpuinfo.

    Where the cores differ (big.LITTLE), each distinct value stands once: "0xd05+0xd0b".
    """
    values: dict[str, set[str]] = {}
    for line in cpuinfo.splitlines():
        key, colon, value = line.partition(":")
        if colon and value.strip():
            values.setdefault(key.strip(), set()).add(value.strip())
    return {
        part: ".".join("+".join(sorted(values.get(key, ()))) for key in keys).strip(".")
        for part, keys in _IDENTITY[arch].items()
    }


def fingerprint_to_json(hardware: Fingerprint) -> dict[str, Any]:
    """Plain data; "type" tells which kind of hardware."""
    (name,) = (name for name, cls in _TYPES.items() if type(hardware) is cls)
    return {"type": name, **dataclasses.asdict(hardware)}


def fingerprint_from_json(data: Mapping[str, Any]) -> Fingerprint:
    """The inverse; ValueError for what is missing, KeyError for a type that is not known."""
    cls = _TYPES[data["type"]]
    return cls(**{part.name: _value(data, part) for part in dataclasses.fields(cls)})


def _value(data: Mapping[str, Any], part: dataclasses.Field[Any]) -> Any:
    value = data[part.name]
    if part.name == "features" and isinstance(value, list):
        return tuple(map(str, value))
    if type(value) is not {"str": str, "int": int}.get(str(part.type)):
        raise ValueError(f"{part.name} is no {part.type}: {value!r}")
    return value
