"""The search: from a speed or a share of the teacher's accuracy to the student that has it."""
