"""The part of the command line that knows Hydra."""
