"""Engines run the language model. Each turns its own decode step into a `esamp.decoding.step.DecodeStep`."""
