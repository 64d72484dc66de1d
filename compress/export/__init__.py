"""Forms in which a student is deployed."""
