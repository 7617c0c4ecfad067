"""Runs over many prompts: where prompts come from, what a run is, and the file that an interrupted one continues."""
