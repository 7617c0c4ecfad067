"""Studies in numbers: measures of samples, statistics, controls, power."""
