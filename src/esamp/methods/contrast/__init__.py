"""Methods that subtract a second set of logits, a weaker model's or an early layer's, on the plausible tokens."""
