"""More rows for the teacher to label, made of the training rows."""
