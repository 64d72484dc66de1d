"""Forms of an encoder that no family has: uneven, shared, quantization-aware."""
