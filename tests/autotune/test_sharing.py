"""How points share work between cores: what a tuner and a log may not change."""

from __future__ import annotations

import numpy as np
import pytest

from planish.autotune.spaces.sharing import sharing, sharing_of


@pytest.mark.parametrize(
    ("choices", "parts"),
    [
        ({"parallel": False, "share": "rows", "outer": "pixels"}, "one core"),
        ({"parallel": True, "share": "rows", "outer": "pixels"}, "rows"),
        ({"parallel": True, "share": "rows", "outer": "channels"}, "rows"),
        ({"parallel": True, "share": "loops", "outer": "channels"}, "loops over channels"),
        ({"parallel": True, "outer": "columns"}, "loops over columns"),
        ({"parallel": True, "vector": 8}, "loops over all"),
    ],
)
def test_parts_have_names(choices: dict[str, object], parts: str) -> None:
    assert sharing_of(choices) == parts


def test_points_are_named_as_each_alone() -> None:
    rng = np.random.default_rng(0)
    points = {
        "parallel": rng.random(64) < 0.7,
        "share": rng.choice(["loops", "rows"], 64),
        "outer": rng.choice(["channels", "pixels"], 64),
    }
    each = [
        sharing_of({name: values[i].item() for name, values in points.items()}) for i in range(64)
    ]
    assert sharing(points).tolist() == each
    assert len(set(each)) == 4
