"""Measuring: latency, accuracy of what was exported, baselines."""
