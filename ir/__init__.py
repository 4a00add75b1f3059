"""planish.ir: types, graph, op table, text form, verifier, ONNX importer and numpy reference."""
