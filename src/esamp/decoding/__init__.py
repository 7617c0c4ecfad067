"""What every decoding method builds on: the decode step, rows on a grid of groups, slots, telemetry, logits."""
