"""Handwritten digits: 1,797 images of 8 x 8 pixels, by 43 people.

From E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998, https://doi.org/10.24432/C50P49, under CC BY 4.0; the test set, in the form in
which scikit-learn ships it: 64 pixels from 0 to 16 and the digit, a line for each image.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
HELD_OUT = 360
"""So many images, the last ones, are kept from training; other people wrote most of them."""


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Images, float32 (1797, 64) from 0 to 1, and their digits, int64 (1797,)."""
    table = np.loadtxt(HERE / "digits.csv.gz", delimiter=",", dtype=np.int64)
    return (table[:, :64] / 16).astype(np.float32), table[:, 64]
