"""Plain ``model.generate(...)`` calls inside an `explore` block, observed by what the model is called with.

calls     `ObservedCalls`: the driver, which learns a step's tokens when they become the model's next input
passes    `PassTracker`: tells the forward passes of prefill and decode steps from all others
endings   `Endings`: finds the rows that have ended by their input tokens
"""
