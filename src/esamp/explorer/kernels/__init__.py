"""Triton kernels: one launch proposes a step, one learns. Imported only where they are used, by `explorer.fused`."""
