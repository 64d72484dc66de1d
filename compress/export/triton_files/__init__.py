"""What runs outside: these files are copied into a Triton model repository, and know nothing of this package."""
