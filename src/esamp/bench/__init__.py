"""What a method costs: throughput, what a decode step launches and moves, and how both grow.

options            the options of ``esamp bench``
throughput         the same decoding plainly and with methods, timed in interleaved rounds
throughput_hf      ... on transformers
throughput_vllm    ... on vLLM
launches           counts of operators, bytes and waits of a decode step
minimum            the least bytes that a decode step must move
machine            the cost of one launch and one byte on a device
cost               an arm's cost, split into launches, bytes and the rest
scaling            one decode step of a method alone, over sizes
scaling_files      its results as a CSV file and a figure
"""
