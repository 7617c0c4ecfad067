"""Tasks: problems with prompts, and graders for what a model answers."""
