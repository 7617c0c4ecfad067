"""The experiment of `esamp.rl.countdown`: plain against exploring rollouts, at equal generated tokens.

settings   what is trained and how much
run        one run of the trainer, and its evaluations by plain sampling
rows       the rows of the file: reading, writing, means over seeds
figure     the curves
"""
