"""Early exits: forms of the student in which easy rows leave before the last layer."""
