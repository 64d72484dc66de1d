"""The command line: what is typed, composed, refused and printed."""
