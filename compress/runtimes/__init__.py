"""What executes a model: loading, running, timing."""
