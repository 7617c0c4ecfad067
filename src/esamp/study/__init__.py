"""Studies: a grid of models, tasks and methods, run into a store of finished groups."""
