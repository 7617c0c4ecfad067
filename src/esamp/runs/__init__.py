"""Runs over many prompts: reading prompts, generating their samples, and an output file that a later run continues."""
