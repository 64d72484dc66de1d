"""Removing parts of a student, physically."""
