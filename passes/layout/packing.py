"""Weights and other constants as arrays in the layouts that kernels read; surplus is zero."""

from __future__ import annotations

import numpy as np

#: Panels are so many vectors wide, the first that divides the matrix; wider ones save loads.
_PANEL_VECTORS = (4, 3, 2, 5, 6, 1)


def pad_segments(
    x: np.ndarray, axis: int, segments: int, block: int, fill: float = 0
) -> np.ndarray:
    """`x` with each of the equal parts of an axis filled up to whole blocks.

    Two segments of 5 in blocks of 4: [.., 10, ..] → [.., 16, ..].
    """
    extent = x.shape[axis] // segments
    full = -(-extent // block) * block
    if full == extent:
        return x
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    padded = np.full((*before, segments, full, *after), fill, x.dtype)
    inside = (slice(None),) * (axis + 1) + (slice(extent),)
    padded[inside] = x.reshape(*before, segments, extent, *after)
    return padded.reshape(*before, segments * full, *after)


def pack_channels(x: np.ndarray, block: int, segments: int = 1, fill: float = 0) -> np.ndarray:
    """[N,C,*S] → [N,C/b,*S,b]."""
    padded = pad_segments(x, 1, segments, block, fill)
    blocks = padded.reshape(x.shape[0], -1, block, *x.shape[2:])
    return np.ascontiguousarray(np.moveaxis(blocks, 2, -1))


def pack_conv(
    w: np.ndarray, ib: int, ob: int, in_segments: int = 1, out_segments: int = 1
) -> np.ndarray:
    """[O,I,KH,KW] → [O/ob,I/ib,KH,KW,ib,ob]; the axes consist of segments of whole blocks."""
    full = pad_segments(pad_segments(w, 0, out_segments, ob), 1, in_segments, ib)
    o, i, kh, kw = full.shape
    blocks = full.reshape(o // ob, ob, i // ib, ib, kh, kw)
    return np.ascontiguousarray(blocks.transpose(0, 2, 4, 5, 3, 1))


def merge_groups(w: np.ndarray, groups: int, merged: int) -> np.ndarray:
    """Weights [O,I/groups,KH,KW] of fewer groups, [O,I/merged,KH,KW], zero between the old ones."""
    if groups == merged:
        return w
    together = groups // merged
    apart = w.reshape(merged, together, -1, *w.shape[1:])
    full = np.zeros((*apart.shape[:3], together, *w.shape[1:]), w.dtype)
    for group in range(together):
        full[:, group, :, group] = apart[:, group]
    return full.reshape(w.shape[0], -1, *w.shape[2:])


def pack_depthwise(w: np.ndarray, block: int, segments: int = 1) -> np.ndarray:
    """[C,1,KH,KW] → [C/b,KH,KW,b]."""
    full = pad_segments(w[:, 0], 0, segments, block)
    blocks = full.reshape(-1, block, *full.shape[1:])
    return np.ascontiguousarray(blocks.transpose(0, 2, 3, 1))


def panel_width(columns: int, lanes: int) -> int:
    """Columns of one packed panel: a few vectors that divide the matrix, else whole vectors.

    A width that divides `columns` leaves no masked tail to store.
    """
    for vector in (lanes, lanes // 2, lanes // 4):
        for count in _PANEL_VECTORS:
            if vector >= 2 and columns % (vector * count) == 0:
                return vector * count
    return lanes * min(4, -(-columns // lanes))


def pack_panels(b: np.ndarray, block: int) -> np.ndarray:
    """[K,N] → [N/block,K,block]."""
    full = pad_segments(b, 1, 1, block)
    return np.ascontiguousarray(full.reshape(b.shape[0], -1, block).transpose(1, 0, 2))
