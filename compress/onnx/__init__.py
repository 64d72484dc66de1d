"""ONNX graphs: reading, rewriting, and counting what they hold."""
