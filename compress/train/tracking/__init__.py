"""Trackers, one package each."""
