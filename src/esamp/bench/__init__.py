"""What exploring costs: timed beside plain sampling, counted in launches and bytes, and over sizes without a model."""
