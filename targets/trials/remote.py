"""Running a harness on other machines, by TVM's RPC tracker and servers."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tvm
from tvm import rpc

from planish.ir.errors import TargetError

Address = tuple[str, int]
_CONNECT_SECONDS = 5.0


def count_devices(tracker: Address, key: str) -> int:
    """How many servers the tracker knows under `key`, busy ones included.

    TargetError if there is no tracker: TVM itself would try for a minute.
    """
    try:
        socket.create_connection(tracker, _CONNECT_SECONDS).close()
    except OSError as error:
        raise TargetError(
            f"no RPC tracker answers at {tracker[0]}:{tracker[1]} ({error}): start one with "
            "`python -m tvm.exec.rpc_tracker`"
        ) from None
    summary = rpc.connect_tracker(*tracker).summary()
    return sum(info["key"] == f"server:{key}" for info in summary["server_info"])


def call_remotely(
    tracker: Address,
    key: str,
    seconds: float,
    files: Mapping[str, Path],
    spec: bytes,
    data: Path,
    report_bytes: int,
) -> bytes:
    """The report of `planish_trial` in the library `harness.so`, run on a device of that key.

    `files` are uploaded under their names into the session's working folder. Waits for a device
    to be free; the server ends a session that takes longer than `seconds`. A lost device or a
    refused call raises RuntimeError or one of TVM's errors.
    """
    session = rpc.connect_tracker(*tracker).request(key, session_timeout=seconds, max_retry=1)
    for name, path in files.items():
        session.upload(str(path), name)
    call = session.load_module("harness.so")["planish_trial"]
    device = session.cpu()
    sent = [
        _upload(np.frombuffer(spec, np.uint8), device),
        _upload(np.fromfile(data, "u1"), device),
    ]
    report = _upload(np.zeros(report_bytes, np.uint8), device)
    status = int(call(*sent, report))
    if status < 0:
        raise RuntimeError("the harness refused the call: the server's TVM has another ABI")
    return bytes(report.numpy())


def _upload(array: np.ndarray, device: object) -> tvm.runtime.Tensor:
    whole = array if array.size else np.zeros(1, np.uint8)  # TVM has no tensor without elements
    return tvm.runtime.tensor(whole, device)
