"""Where the teacher comes from and what is known of it."""
