"""torch.compile(backend="planish"): graphs of Dynamo, their shapes, weights, and refusals."""

from __future__ import annotations

from typing import Any

import pytest

import planish

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.slow  # torch alone takes seconds to import, and its exporter as many

QUICK = {"verify": False, "log": False}


@pytest.fixture(autouse=True)
def forget_graphs() -> None:
    torch._dynamo.reset()


class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Tensors, numbers and a nested structure as results."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(12, 5)
        self.norm = torch.nn.BatchNorm1d(5)

    def forward(self, x: Any, mask: Any = None, factor: int = 2) -> Any:
        y = self.norm(self.linear(x)) * factor
        if mask is not None:
            y = torch.where(mask, y, 0.0)
        return {"y": y, "rows": x.shape[0], "sums": [y.sum(0), y.mean()]}


def check(net: Any, compiled: Any, *args: Any, **kwargs: Any) -> None:
    with torch.no_grad():
        wanted, found = net(*args, **kwargs), compiled(*args, **kwargs)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_shapes_and_weights_as_they_come() -> None:
    assert "planish" in torch._dynamo.list_backends()
    torch.manual_seed(0)
    net, other = Net().eval(), Net().eval()
    x = torch.randn(3, 12)
    check(net, torch.compile(net, backend="planish"), x)
    torch._dynamo.reset()
    compiled = torch.compile(net, backend="planish", options=QUICK)
    check(net, compiled, x)
    for rows in (4, 7):
        check(net, compiled, torch.randn(rows, 12))
    check(net, compiled, torch.randn(12, 4).T)
    check(net, compiled, x, mask=torch.rand(3, 5) > 0.5)
    with torch.no_grad():
        net.linear.weight.mul_(3)
        net.norm.running_mean.add_(1)
    check(net, compiled, x)
    net.load_state_dict(other.state_dict())
    check(net, compiled, x)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(x)["y"], net(x)["y"], rtol=1e-5, atol=1e-5)
    torch._dynamo.reset()
    function = torch.compile(planish_free, backend=planish.torch_backend, options=QUICK)
    torch.testing.assert_close(function(x), planish_free(x), rtol=1e-5, atol=1e-5)
    parameter = x.clone().requires_grad_()
    with torch.no_grad():
        torch.testing.assert_close(function(parameter), planish_free(x), rtol=1e-5, atol=1e-5)


def planish_free(x: Any) -> Any:
    return torch.softmax(x @ x.T, -1), x


def scales(x: Any) -> Any:
    return torch.fft.fft(x).abs()


class Counter(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Writes into a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(3))

    def forward(self, x: Any) -> Any:
        self.count.add_(x)
        return self.count * 2


def raised(call: Any) -> BaseException:
    """The error of planish's inside the one that Dynamo makes of it."""
    with pytest.raises(Exception, match=r"\S") as caught:
        call()
    error: BaseException | None = caught.value
    while error is not None and not isinstance(error, planish.PlanishError):
        error = error.__cause__ or getattr(error, "inner_exception", None)
    assert error is not None, caught.value
    return error


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(3, 12)
    compiled = torch.compile(Net().eval(), backend="planish", options=QUICK)
    error = raised(lambda: compiled(x))
    assert isinstance(error, planish.UnsupportedModel)
    assert "torch.inference_mode()" in str(error)
    with torch.no_grad():
        error = raised(lambda: torch.compile(Counter(), backend="planish")(torch.ones(3)))
        assert "writes into its buffers or inputs in place (" in str(error)
        error = raised(lambda: torch.compile(scales, backend="planish")(x))
        assert isinstance(error, planish.UnsupportedModel)
        assert "node '" in str(error) or "fft" in str(error)
        error = raised(lambda: planish.torch_backend(None, [], mode="max-autotune"))
        assert "mode='max-autotune': planish has no modes" in str(error)
        torch._dynamo.reset()
        monkeypatch.setattr(torch._dynamo.config, "suppress_errors", True)
        fallen_back = torch.compile(scales, backend="planish")
        torch.testing.assert_close(fallen_back(x), scales(x))
