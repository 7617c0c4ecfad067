"""Methods side by side on the same prompts: `esamp compare` and `esamp demo`."""
