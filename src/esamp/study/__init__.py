"""Studies: grids of runs, their records, their statistics and their report."""
