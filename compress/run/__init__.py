"""A run: its recipe, the check before it, its folder."""
