"""The `planish` command; `main` is its entry point."""

from __future__ import annotations

from planish.cli.app import main

__all__ = ["main"]
