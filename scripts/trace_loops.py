"""What exploring measures inside loops and outside of them, on one long continuation of a book.

    python scripts/trace_loops.py book.txt

Sixteen samples are drawn on transformers with the default, and every token is measured. A token counts as within a
loop if it ends three tokens in a row that the same sample has had among its last 80 tokens.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

import esamp
from esamp.models import resolve
from esamp.tasks import registry

SHOWN = ("novelty", "cosine", "kl", "entropy")
HEADS = ("tokens", "error |e|", "cos(e, token)", "KL, nats", "model's entropy, nats")
NEAR = 80
"""Tokens back in which the same three tokens in a row count as a repetition."""


def in_loops(tokens: Tensor) -> Tensor:
    """`[B, T]` bool: tokens `[B, T]` that end three in a row which came within the last `NEAR` tokens already."""
    looped = torch.zeros_like(tokens, dtype=torch.bool)
    for row, sample in enumerate(tokens.tolist()):
        seen: dict[tuple[int, ...], int] = {}
        for place in range(2, len(sample)):
            three = tuple(sample[place - 2 : place + 1])
            looped[row, place] = place - seen.get(three, -NEAR - 1) <= NEAR
            seen[three] = place
    return looped


def main() -> None:
    """Draw, measure and print."""
    parser = argparse.ArgumentParser(description="What exploring measures inside loops and outside of them.")
    parser.add_argument("book", type=Path, help="a text file; its middle is continued")
    parser.add_argument("--tokens", type=int, default=300, help="length of each of the 16 samples")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--keep-entropy", action="store_true", help="with keep_entropy")
    given = parser.parse_args()
    if given.tokens < 3 or given.temperature <= 0:
        parser.error("--tokens must be at least 3, and --temperature above 0")
    kind = registry.get("continuation")
    try:
        [item] = kind.build(kind.options.parse({"data": str(given.book)})).items()
    except esamp.EsampError as error:
        parser.error(str(error))
    name = resolve("smollm2")
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32),
        AutoTokenizer.from_pretrained(name),
    )
    inputs = tokenizer(item.prompt, return_tensors="pt")
    torch.manual_seed(0)
    options = esamp.ESampConfig(keep_entropy=given.keep_entropy)
    with esamp.explore(model, options, trace=True) as run:
        rows = run.generate(
            **inputs,
            do_sample=True,
            temperature=given.temperature,
            top_k=0,
            num_return_sequences=16,
            max_new_tokens=given.tokens,
        )
        trace = run.trace
    looped = in_loops(rows[:, inputs["input_ids"].shape[1] :])
    print("| position |  |", " | ".join(HEADS), "|")
    print("| --- " * (len(HEADS) + 2) + "|")
    for start in range(0, looped.shape[1], 100):
        part = slice(start, start + 100)
        for where, chosen in (("in loops", looped[:, part]), ("elsewhere", ~looped[:, part])):
            found = [getattr(trace, name)[:, part][chosen].nanmean().item() for name in SHOWN]
            cells = [f"{start} to {start + chosen.shape[1]}", where, f"{chosen.float().mean():.0%}"]
            print("|", " | ".join(cells + [f"{value:.2f}" for value in found]), "|")


if __name__ == "__main__":
    main()
