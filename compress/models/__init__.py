"""What is known of encoders: families, outputs, pruned shapes, tokens, loading, ONNX."""
