"""Thread pool, workspace and CPU count, by a C program; also under the sanitizers and valgrind."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from toy_model import HOST

from planish.targets.linking import find_toolchain
from planish.targets.model_source import RUNTIME

SOURCE = Path(__file__).parent / "pool_test.c"


def build(folder: Path, *flags: str) -> Path:
    program = folder / "pool_test"
    sources = [SOURCE, *sorted(RUNTIME.glob("*.c"))]
    command = [
        *find_toolchain(HOST).command,
        "-std=c11",
        "-O1",
        "-g",
        "-Wall",
        "-Wextra",
        "-Werror",
    ]
    command += [*flags, f"-I{RUNTIME}", *map(str, sources), "-o", str(program), "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0 and flags:
        pytest.skip(f"the compiler does not take {flags}: {done.stderr[:200]}")
    assert done.returncode == 0, done.stderr
    return program


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("pool"))


def test_pool(program: Path) -> None:
    done = subprocess.run([program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_pool_under_a_sanitizer(sanitizer: str, tmp_path: Path) -> None:
    sanitized = build(tmp_path, f"-fsanitize={sanitizer}")
    # Without randomised addresses: some versions of the thread sanitizer fail with them.
    command = [str(sanitized), "3"]
    if shutil.which("setarch"):
        command = ["setarch", "-R", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if "unexpected memory mapping" in done.stderr or "personality" in done.stderr:
        pytest.skip("the sanitizer does not run on this machine")
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_pool_under_valgrind(program: Path) -> None:
    command = ["valgrind", "-q", "--leak-check=full", "--error-exitcode=9", str(program), "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("cgroup", "mount", "files", "expected"),
    [
        pytest.param("0::/a/b", "2 /", {"a/b/cpu.max": "max 100000"}, "0", id="v2-unlimited"),
        pytest.param("0::/a/b", "2 /", {"a/b/cpu.max": "150000 100000"}, "1.5", id="v2"),
        pytest.param(
            "0::/a/b",
            "2 /",
            {"a/b/cpu.max": "400000 100000", "a/cpu.max": "50000 100000"},
            "0.5",
            id="v2-parent-is-tighter",
        ),
        pytest.param("0::/", "2 /", {"cpu.max": "200000 100000"}, "2", id="v2-namespace"),
        pytest.param(
            "0::/docker/x", "2 /docker/x", {"cpu.max": "300000 100000"}, "3", id="v2-bind-mount"
        ),
        pytest.param("0::/gone", "2 /x", {"cpu.max": "300000 100000"}, "3", id="v2-not-visible"),
        pytest.param(
            "5:cpu,cpuacct:/a",
            "1 / rw,cpu,cpuacct",
            {"a/cpu.cfs_quota_us": "250000", "a/cpu.cfs_period_us": "100000"},
            "2.5",
            id="v1",
        ),
        pytest.param(
            "5:cpu:/a",
            "1 / rw,cpu",
            {"a/cpu.cfs_quota_us": "-1", "a/cpu.cfs_period_us": "100000"},
            "0",
            id="v1-unlimited",
        ),
        pytest.param(
            "5:cpuset:/a", "1 / rw,cpuset", {"a/cpu.cfs_quota_us": "1"}, "0", id="v1-cpuset"
        ),
        pytest.param("nonsense", "2 /", {}, "0", id="broken"),
    ],
)
def test_cgroup_quota(
    cgroup: str, mount: str, files: dict[str, str], expected: str, program: Path, tmp_path: Path
) -> None:
    version, root, options = (*mount.split(), "rw")[:3]
    mounted = tmp_path / "mounted"
    for name, content in files.items():
        (mounted / name).parent.mkdir(parents=True, exist_ok=True)
        (mounted / name).write_text(content + "\n")
    kind = "cgroup2" if version == "2" else "cgroup"
    (tmp_path / "mountinfo").write_text(
        "20 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
        f"31 23 0:28 {root} {mounted} rw,nosuid shared:9 - {kind} cgroup {options}\n"
    )
    (tmp_path / "cgroup").write_text(f"1:name=systemd:/\n{cgroup}\n")
    command = [program, tmp_path / "cgroup", tmp_path / "mountinfo"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
