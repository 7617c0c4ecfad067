"""Tasks: problems with prompts, and graders for the answers of models."""
