"""Reads handwritten digits by a compiled model, and shows them: python read.py ARTEFACT [FIRST].

planish compile examples/digits/digits.onnx --dim batch=1 -o build/digits
python examples/digits/read.py build/digits
"""

from __future__ import annotations

import sys

import numpy as np
from data import HELD_OUT, load_digits

import planish

SHOWN = 5
INK = " .:-=+*#%@"


def picture(image: np.ndarray) -> list[str]:
    """Eight lines, two characters a pixel."""
    return ["".join(INK[int(9 * pixel)] * 2 for pixel in row) for row in image.reshape(8, 8)]


def main() -> None:
    """Reads all images that the model was not trained on, and prints some of them."""
    images, digits = (array[-HELD_OUT:] for array in load_digits())
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    model = planish.load(sys.argv[1])
    probabilities = np.concatenate([model(image[None]) for image in images])
    answers = probabilities.argmax(1)
    shown = range(first, min(first + SHOWN, HELD_OUT))
    for lines in zip(*(picture(images[index]) for index in shown)):
        print("  ".join(lines))
    told = (f"{answers[index]} ({probabilities[index].max():.0%})" for index in shown)
    print("  ".join(text.center(16) for text in told).rstrip())
    right = int((answers == digits).sum())
    print(f"{right} of {HELD_OUT} images that it was not trained on are read right")


if __name__ == "__main__":
    main()
