"""Families of encoders: where each keeps its layers and what can be done with them."""
