"""Low-precision candidates of a student."""
