"""More rows for the teacher to label, made from the training rows."""
