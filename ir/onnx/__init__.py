"""The ONNX importer: opsets 7 to the newest into the normalised ops of the IR."""

from planish.ir.onnx.importer import import_model, suggest_sizes

__all__ = ["import_model", "suggest_sizes"]
