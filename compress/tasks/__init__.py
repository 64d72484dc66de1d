"""What is predicted: the tasks that a recipe can ask for."""
