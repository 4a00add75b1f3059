"""The CPU features that an artefact may require: LLVM's names, and where a machine tells of them.

The runtime's generated table (targets/model_source.py) and the manifest are both written from here,
so that neither the C code nor the loader keeps a list of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from planish.ir.errors import TargetError


@dataclass(frozen=True, slots=True)
class CpuFeature:
    """One feature: `cpuinfo` is its flag in /proc/cpuinfo; the rest is runtime.h's struct."""

    name: str
    cpuinfo: str
    leaf: int
    subleaf: int
    word: int
    bit: int
    xcr0: int


_EAX, _EBX, _ECX, _EDX = range(4)
_EXTENDED = 0x80000001
_SSE_STATE, _AVX_STATE, _AVX512_STATE, _AMX_STATE = 0x0, 0x6, 0xE6, 0x60000

# name: (flag of /proc/cpuinfo where it differs, leaf, subleaf, word, bit, XCR0 bits).
# Source: Intel SDM volume 2A (CPUID), AMD APM volume 3, Linux arch/x86/include/asm/cpufeatures.h.
_X86: dict[str, tuple[str, int, int, int, int, int]] = {
    "sse3": ("pni", 1, 0, _ECX, 0, _SSE_STATE),
    "pclmul": ("pclmulqdq", 1, 0, _ECX, 1, _SSE_STATE),
    "ssse3": ("", 1, 0, _ECX, 9, _SSE_STATE),
    "fma": ("", 1, 0, _ECX, 12, _AVX_STATE),
    "cx16": ("", 1, 0, _ECX, 13, _SSE_STATE),
    "sse4.1": ("sse4_1", 1, 0, _ECX, 19, _SSE_STATE),
    "sse4.2": ("sse4_2", 1, 0, _ECX, 20, _SSE_STATE),
    "movbe": ("", 1, 0, _ECX, 22, _SSE_STATE),
    "popcnt": ("", 1, 0, _ECX, 23, _SSE_STATE),
    "aes": ("", 1, 0, _ECX, 25, _SSE_STATE),
    "avx": ("", 1, 0, _ECX, 28, _AVX_STATE),
    "f16c": ("", 1, 0, _ECX, 29, _AVX_STATE),
    "rdrnd": ("rdrand", 1, 0, _ECX, 30, _SSE_STATE),
    "sahf": ("lahf_lm", _EXTENDED, 0, _ECX, 0, _SSE_STATE),
    "lzcnt": ("abm", _EXTENDED, 0, _ECX, 5, _SSE_STATE),
    "prfchw": ("3dnowprefetch", _EXTENDED, 0, _ECX, 8, _SSE_STATE),
    "bmi": ("bmi1", 7, 0, _EBX, 3, _SSE_STATE),
    "avx2": ("", 7, 0, _EBX, 5, _AVX_STATE),
    "bmi2": ("", 7, 0, _EBX, 8, _SSE_STATE),
    "avx512f": ("", 7, 0, _EBX, 16, _AVX512_STATE),
    "avx512dq": ("", 7, 0, _EBX, 17, _AVX512_STATE),
    "adx": ("", 7, 0, _EBX, 19, _SSE_STATE),
    "avx512ifma": ("", 7, 0, _EBX, 21, _AVX512_STATE),
    "clflushopt": ("", 7, 0, _EBX, 23, _SSE_STATE),
    "clwb": ("", 7, 0, _EBX, 24, _SSE_STATE),
    "avx512cd": ("", 7, 0, _EBX, 28, _AVX512_STATE),
    "sha": ("sha_ni", 7, 0, _EBX, 29, _SSE_STATE),
    "avx512bw": ("", 7, 0, _EBX, 30, _AVX512_STATE),
    "avx512vl": ("", 7, 0, _EBX, 31, _AVX512_STATE),
    "avx512vbmi": ("", 7, 0, _ECX, 1, _AVX512_STATE),
    "avx512vbmi2": ("avx512_vbmi2", 7, 0, _ECX, 6, _AVX512_STATE),
    "gfni": ("", 7, 0, _ECX, 8, _SSE_STATE),
    "vaes": ("", 7, 0, _ECX, 9, _AVX_STATE),
    "vpclmulqdq": ("", 7, 0, _ECX, 10, _AVX_STATE),
    "avx512vnni": ("avx512_vnni", 7, 0, _ECX, 11, _AVX512_STATE),
    "avx512bitalg": ("avx512_bitalg", 7, 0, _ECX, 12, _AVX512_STATE),
    "avx512vpopcntdq": ("avx512_vpopcntdq", 7, 0, _ECX, 14, _AVX512_STATE),
    "avx512vp2intersect": ("avx512_vp2intersect", 7, 0, _EDX, 8, _AVX512_STATE),
    "amx-bf16": ("amx_bf16", 7, 0, _EDX, 22, _AMX_STATE),
    "avx512fp16": ("avx512_fp16", 7, 0, _EDX, 23, _AVX512_STATE),
    "amx-tile": ("amx_tile", 7, 0, _EDX, 24, _AMX_STATE),
    "amx-int8": ("amx_int8", 7, 0, _EDX, 25, _AMX_STATE),
    "avxvnni": ("avx_vnni", 7, 1, _EAX, 4, _AVX_STATE),
    "avx512bf16": ("avx512_bf16", 7, 1, _EAX, 5, _AVX512_STATE),
    "amx-fp16": ("amx_fp16", 7, 1, _EAX, 21, _AMX_STATE),
    "avxifma": ("avx_ifma", 7, 1, _EAX, 23, _AVX_STATE),
    "avxvnniint8": ("avx_vnni_int8", 7, 1, _EDX, 4, _AVX_STATE),
    "avxneconvert": ("avx_ne_convert", 7, 1, _EDX, 5, _AVX_STATE),
}

_HWCAP, _HWCAP2 = 16, 26  # getauxval() types

# name: (flag of /proc/cpuinfo, getauxval() type, bit).
# Source: Linux arch/arm64/include/uapi/asm/hwcap.h.
_AARCH64: dict[str, tuple[str, int, int]] = {
    "fp-armv8": ("fp", _HWCAP, 0),
    "neon": ("asimd", _HWCAP, 1),
    "aes": ("aes", _HWCAP, 3),
    "sha2": ("sha2", _HWCAP, 6),
    "crc": ("crc32", _HWCAP, 7),
    "lse": ("atomics", _HWCAP, 8),
    "fullfp16": ("asimdhp", _HWCAP, 10),
    "rdm": ("asimdrdm", _HWCAP, 12),
    "jsconv": ("jscvt", _HWCAP, 13),
    "complxnum": ("fcma", _HWCAP, 14),
    "rcpc": ("lrcpc", _HWCAP, 15),
    "sha3": ("sha3", _HWCAP, 17),
    "dotprod": ("asimddp", _HWCAP, 20),
    "sve": ("sve", _HWCAP, 22),
    "fp16fml": ("asimdfhm", _HWCAP, 23),
    "sve2": ("sve2", _HWCAP2, 1),
    "i8mm": ("i8mm", _HWCAP2, 13),
    "bf16": ("bf16", _HWCAP2, 14),
    "sme": ("sme", _HWCAP2, 23),
}

# Part of every CPU that the runtime is compiled for, or advice to LLVM rather than instructions.
_BASELINE: dict[str, frozenset[str]] = {
    "x86_64": frozenset(
        {"64bit", "cmov", "crc32", "cx8", "fxsr", "mmx", "sse", "sse2", "x87", "xsave"}
        | {"evex512", "prefer-256-bit", "fast-variable-perlane-shuffle"}
    ),
    "aarch64": frozenset(("v8a",)),
    "riscv64": frozenset(("64bit", "m", "a", "f", "d", "c", "relax", "zicsr", "zifencei")),
}


def required_features(architecture: str, names: Iterable[str]) -> tuple[CpuFeature, ...]:
    """Give the features to check for, by name, without the baseline and those spelled "-x".

    Raises TargetError for a feature that this module cannot check: it would end in SIGILL.
    """
    found: dict[str, CpuFeature] = {}
    for spelled in names:
        name = spelled.removeprefix("+")
        if name.startswith("-") or name in _BASELINE.get(architecture, frozenset()):
            continue
        if architecture == "x86_64" and name in _X86:
            flag, leaf, subleaf, word, bit, xcr0 = _X86[name]
            found[name] = CpuFeature(name, flag or name, leaf, subleaf, word, bit, xcr0)
        elif architecture == "aarch64" and name in _AARCH64:
            flag, leaf, bit = _AARCH64[name]
            found[name] = CpuFeature(name, flag, leaf, 0, 0, bit, 0)
        else:
            raise TargetError(
                f"an artefact for {architecture} cannot check the CPU for feature '{name}'; leave "
                "it out of the target, or add it to targets/runtime/cpu_features.py"
            )
    return tuple(found[name] for name in sorted(found))


def known_features(architecture: str) -> frozenset[str]:
    """Give the names that required_features accepts, the baseline included."""
    table = {"x86_64": frozenset(_X86), "aarch64": frozenset(_AARCH64)}.get(architecture)
    return (table or frozenset()) | _BASELINE.get(architecture, frozenset())
