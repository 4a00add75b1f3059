"""planish.bisection: finding the first pass, node or kernel that is wrong or fails."""

from planish.bisection.search import Finding, bisect

__all__ = ["Finding", "bisect"]
