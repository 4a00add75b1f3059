"""planish.bisect: the first pass, node or kernel that computes something wrong, or fails."""

from planish.bisect.search import Finding, bisect

__all__ = ["Finding", "bisect"]
