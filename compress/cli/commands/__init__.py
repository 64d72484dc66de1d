"""The commands, one file each: `parser()` returns its options, `main(argv)` runs it and returns its exit code."""

NAMES = ("run", "plan", "search", "export", "answer", "compare", "bench", "predict", "recipes", "cache", "completion")
"""In the order of the overview; a new command is a file here and its name."""
