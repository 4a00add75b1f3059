"""Trains the network that reads digits, and writes it as digits.onnx: python train.py [FILE].

A perceptron with one hidden layer, learned by Adam in plain numpy within a few seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from data import HELD_OUT, HERE, load_digits
from onnx import TensorProto, helper, numpy_helper

HIDDEN, EPOCHS, BATCH, RATE, DECAY = 64, 60, 32, 2e-3, 1e-4


def predict(weights: dict[str, np.ndarray], images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The hidden layer, and the probability of each digit."""
    hidden = np.maximum(images @ weights["w1"] + weights["b1"], 0)
    scores = hidden @ weights["w2"] + weights["b2"]
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return hidden, powers / powers.sum(axis=1, keepdims=True)


def gradients(
    weights: dict[str, np.ndarray], images: np.ndarray, digits: np.ndarray
) -> dict[str, np.ndarray]:
    """Of the mean cross entropy, with some decay of the weights."""
    hidden, error = predict(weights, images)
    error[np.arange(len(digits)), digits] -= 1
    error /= len(digits)
    back = error @ weights["w2"].T * (hidden > 0)
    return {
        "w1": images.T @ back + DECAY * weights["w1"],
        "b1": back.sum(0),
        "w2": hidden.T @ error + DECAY * weights["w2"],
        "b2": error.sum(0),
    }


def train(images: np.ndarray, digits: np.ndarray) -> dict[str, np.ndarray]:
    """The weights after all epochs; the same each time."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.standard_normal((64, HIDDEN)) * np.sqrt(2 / 64),
        "b1": np.zeros(HIDDEN),
        "w2": rng.standard_normal((HIDDEN, 10)) * np.sqrt(2 / HIDDEN),
        "b2": np.zeros(10),
    }
    first = {name: np.zeros_like(value) for name, value in weights.items()}
    second = {name: np.zeros_like(value) for name, value in weights.items()}
    step = 0
    for _ in range(EPOCHS):
        for chosen in np.array_split(rng.permutation(len(digits)), len(digits) // BATCH):
            step += 1
            for name, slope in gradients(weights, images[chosen], digits[chosen]).items():
                first[name] = 0.9 * first[name] + 0.1 * slope
                second[name] = 0.999 * second[name] + 0.001 * slope**2
                mean, spread = first[name] / (1 - 0.9**step), second[name] / (1 - 0.999**step)
                weights[name] -= RATE * mean / (np.sqrt(spread) + 1e-8)
    return weights


def write(weights: dict[str, np.ndarray], path: Path) -> None:
    """The network as an ONNX model: images float32 (batch, 64) to probabilities (batch, 10)."""
    nodes = [
        helper.make_node("Gemm", ["images", "w1", "b1"], ["sum"], "hidden"),
        helper.make_node("Relu", ["sum"], ["hidden"], "activation"),
        helper.make_node("Gemm", ["hidden", "w2", "b2"], ["scores"], "digits"),
        helper.make_node("Softmax", ["scores"], ["probabilities"], "softmax", axis=1),
    ]
    tensors = [numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ("batch", 64))
    answers = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ("batch", 10))
    graph = helper.make_graph(nodes, "digits", [images], [answers], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def main() -> None:
    """Trains on all but the images held out, tells how many of those are read right, writes."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "digits.onnx"
    images, digits = load_digits()
    weights = train(images[:-HELD_OUT], digits[:-HELD_OUT])
    answers = predict(weights, images[-HELD_OUT:])[1].argmax(1)
    right = int((answers == digits[-HELD_OUT:]).sum())
    write(weights, path)
    print(f"{path}: reads {right} of {HELD_OUT} images right that it was not trained on")


if __name__ == "__main__":
    main()
