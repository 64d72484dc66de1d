"""The commands, one file each; `main(argv)` runs one and returns its exit code."""
