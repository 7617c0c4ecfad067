"""What runs in each of vLLM's worker processes: workers, model runners, samplers, and the exploration in them."""
