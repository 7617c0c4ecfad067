"""Methods that drop or reweight tokens of one sample at a time, or set the engine's own sampler to do so."""
