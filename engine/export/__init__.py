"""The export of a run to ONNX, with its model card."""
