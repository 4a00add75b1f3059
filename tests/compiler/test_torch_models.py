"""Modules and programs of PyTorch are compiled like ONNX files."""

from __future__ import annotations

import importlib.util
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import planish

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.slow  # torch alone takes seconds to import, and its exporter as many


class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Dropout and a batch norm, which compute something else in training; two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(12, 5)
        self.drop = torch.nn.Dropout(0.5)
        self.norm = torch.nn.BatchNorm1d(5)

    def forward(self, x: Any, scale: Any) -> Any:
        return self.norm(self.drop(self.linear(x))) * scale, x.sum()


def net() -> Any:
    torch.manual_seed(0)
    module = Net()
    module.norm.running_mean.uniform_(-1, 1)
    return module


def inputs() -> tuple[Any, Any]:
    torch.manual_seed(1)
    return torch.randn(3, 12), torch.randn(5)


def check(model: planish.Model) -> None:
    module = net().eval()
    with torch.no_grad():
        wanted = module(*inputs())
    found = model(*inputs())
    assert all(isinstance(tensor, torch.Tensor) for tensor in found)
    for tensor, right in zip(found, wanted):
        torch.testing.assert_close(tensor, right, rtol=1e-5, atol=1e-5)
    arrays = model(*(tensor.numpy() for tensor in inputs()))
    assert all(isinstance(array, np.ndarray) for array in arrays)


def test_modules_are_exported_in_evaluation_mode(tmp_path: Path) -> None:
    module = net()
    module.linear.eval()
    model = planish.compile(module, example_inputs=inputs())
    assert [part.training for part in module.modules()] == [True, False, True, True]
    assert model.name == "net"
    assert [tensor.name for tensor in model.inputs] == ["x", "scale"]
    check(model)
    check(pickle.loads(pickle.dumps(model)))
    x, scale = (tensor.numpy() for tensor in inputs())
    report = planish.compile(module, tmp_path / "out", example_inputs={"x": x, "scale": scale})
    assert report.verification is not None
    check(planish.load(tmp_path / "out"))


def test_programs_are_compiled() -> None:
    module = net().eval()
    check(planish.compile(torch.export.export(module, inputs())))
    program = torch.onnx.export(module, inputs(), dynamo=True, verbose=False)
    check(planish.compile(program))
    check(planish.compile(program.model_proto, name="net"))


def test_tensors_as_inputs_and_outputs() -> None:
    model = planish.compile(net(), example_inputs=inputs())
    x, scale = inputs()
    name = model.outputs[0].name
    place = torch.zeros(3, 5)
    assert model(x, scale, outputs=name, out={name: place}) is place
    torch.testing.assert_close(place, model(x, scale)[0], rtol=0, atol=0)
    found = model.run({"x": x, "scale": scale}, out={name: place})
    assert found[name] is place
    assert isinstance(model.run({"x": x, "scale": scale})[name], np.ndarray)
    assert isinstance(model(x, scale.numpy())[0], np.ndarray), "of both kinds: numpy"
    with pytest.raises(planish.TensorError, match=r"input 'x' cannot be read through DLPack"):
        model(x.clone().requires_grad_(), scale)
    with pytest.raises(planish.TensorError, match=r"torch tensor in CPU memory that needs no grad"):
        model(x, scale, out={name: torch.zeros(3, 5, requires_grad=True)})
    with pytest.raises(planish.TensorError, match=r"must be a writeable, C-contiguous array"):
        model(x, scale, out={name: torch.zeros(5, 3).T})


class Branches(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Control flow that no tracer follows."""

    def forward(self, x: Any) -> Any:
        return x if x.sum() > 0 else -x


class Counter(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Has a state."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(3))

    def forward(self, x: Any) -> Any:
        self.count.add_(x)
        return self.count * 2


def test_what_cannot_be_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(planish.InvalidModel, match=r"example_inputs=torch.randn\(1, 3, 224, 224\)"):
        planish.compile(net())
    with pytest.raises(planish.UnsupportedModel, match=r"cannot export this Branches: \S+"):
        planish.compile(Branches(), example_inputs=torch.randn(3))
    with pytest.raises(planish.UnsupportedModel, match=r"writes into .* in place \(count\)"):
        planish.compile(Counter(), example_inputs=torch.randn(3))
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name)
    )
    with pytest.raises(planish.PlanishError, match=re.escape("pip install onnxscript")):
        planish.compile(net(), example_inputs=inputs())
