"""Architectures of students, and what their weights start from."""
