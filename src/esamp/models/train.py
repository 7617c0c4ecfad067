"""Train the embedded Countdown model from nothing:

    python -m esamp.models.train --out DIR [--minutes 55] [--device auto] [--width 256] [--resume]

The budget is wall time: the learning rate falls to zero when the minutes are over. Every two minutes the model (usable
at once) and the state of the training are written to DIR; `--resume` goes on from there, with the minutes already
trained counted in.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ..tasks.countdown.problem import Rules
from ..tasks.countdown.trace import Habits
from .data import PackedTraces, batches
from .tokenizer import build_tokenizer

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True)
class Options:
    """What the command line sets. Learning rates are peaks; `rows` is the batch in rows of `length` tokens."""

    out: Path
    minutes: float = 55.0
    device: str = "auto"
    width: int = 256
    layers: int = 4
    heads: int = 4
    length: int = 512
    rows: int = 0
    matrix_lr: float = 6e-3
    other_lr: float = 3e-3
    seed: int = 0
    save_every: float = 120.0
    resume: bool = False
    compile: bool = True


def pick_device(name: str) -> torch.device:
    """The named device; for "auto" CUDA where present, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def set_threads() -> None:
    """One thread per core that this process may run on (`OMP_NUM_THREADS` keeps its say)."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def new_model(options: Options, tokenizer: PreTrainedTokenizerFast, device: torch.device) -> LlamaForCausalLM:
    """A freshly initialised Llama with untied output head and head size width / heads."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=options.width,
        intermediate_size=round(options.width * 2.75 / 32) * 32,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        num_key_value_heads=options.heads,
        max_position_embeddings=options.length,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    # Attention as matmul + softmax: on the CPU the backward pass of the fused kernel is several times slower.
    config._attn_implementation = "sdpa" if device.type == "cuda" else "eager"
    return LlamaForCausalLM(config).to(device)


def loss_of(model: nn.Module, batch: Tensor) -> Tensor:
    """Mean cross-entropy of the next token in packed rows; attention stays within each trace.

    batch: (2, rows, length) token ids and trace numbers, 0 where padded.
    """
    ids, trace = batch[0, :, :-1], batch[1]
    within = trace[:, :-1, None] == trace[:, None, :-1]  # (rows, query, key)
    causal = torch.ones(within.shape[1:], dtype=torch.bool, device=ids.device).tril()
    mask = torch.zeros(within.shape, device=ids.device).masked_fill(~(within & causal), -1e9)[:, None]
    labels = torch.where((trace[:, 1:] == trace[:, :-1]) & (trace[:, 1:] > 0), batch[0, :, 1:], -100)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=-100)


def optimizers(model: nn.Module, options: Options) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embedding, head and norms."""
    matrices, others = [], []
    for name, parameter in model.named_parameters():
        inside = ".layers." in name and parameter.ndim == 2
        (matrices if inside else others).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=options.matrix_lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=options.other_lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def schedule(progress: float) -> float:
    """Learning-rate factor: up over the first 2 % of the time, level to 40 %, then straight down to 0."""
    return min(progress / 0.02, 1.0, max(0.0, (1.0 - progress) / 0.6))


class Trainer:
    """The model, its optimizers and how far the training is; all of it goes to the checkpoint and back."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.device = pick_device(options.device)
        torch.manual_seed(options.seed)
        self.rules, habits = Rules(), Habits()
        self.tokenizer = build_tokenizer(self.rules.ceiling, options.length)
        self.model = new_model(options, self.tokenizer, self.device)
        self.optimizers = optimizers(self.model, options)
        self.seconds, self.step, self.tokens, self.resumed = 0.0, 0, 0, 0
        if options.resume:
            self.load()
        rows = options.rows or (64 if self.device.type == "cuda" else 16)
        vocab = self.tokenizer.get_vocab()
        seed = options.seed + 1000 * self.resumed  # a resumed run draws new traces
        self.dataset = PackedTraces(vocab, rows, options.length, seed, self.rules, habits)

    def save(self) -> None:
        """Write the model as transformers loads it (bfloat16), and the state of the training."""
        out = self.options.out
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": (self.seconds, self.step, self.tokens, self.resumed),
        }
        torch.save(state, out / f"{CHECKPOINT}.new")
        os.replace(out / f"{CHECKPOINT}.new", out / CHECKPOINT)
        export = LlamaForCausalLM(self.model.config)
        export.load_state_dict(self.model.state_dict())
        export.generation_config.do_sample = True
        export.generation_config.max_length = self.options.length
        export.to(torch.bfloat16).save_pretrained(out)
        self.tokenizer.save_pretrained(out)

    def load(self) -> None:
        """Go on from the checkpoint in the output folder."""
        state = torch.load(self.options.out / CHECKPOINT, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.seconds, self.step, self.tokens, self.resumed = state["progress"]
        self.resumed += 1

    def stream(self) -> Iterator[Tensor]:
        """Batches on the device; enough processes that making traces does not hold up the training."""
        workers = min(8, max(1, (os.cpu_count() or 1) - 1)) if self.device.type == "cuda" else 1
        for batch in batches(self.dataset, workers):
            yield batch.to(self.device, non_blocking=True)

    def train(self) -> None:
        """Train until the minutes are over, reporting and saving on the way."""
        budget = self.options.minutes * 60
        loss_fn = torch.compile(loss_of) if self.options.compile else loss_of
        clock = saved = shown = time.monotonic()
        since, losses = 0, []
        for batch in self.stream():
            progress = self.seconds / budget
            if progress >= 1:
                break
            losses.append(self.update(loss_fn, batch, schedule(progress)))
            count = batch[1].count_nonzero().item()
            self.tokens, since, self.step = self.tokens + int(count), since + int(count), self.step + 1
            now = time.monotonic()
            self.seconds, clock = self.seconds + now - clock, now
            if now - shown > 10:
                mean = torch.stack(losses).mean().item()
                rate = since / (now - shown)
                left = max(0.0, budget - self.seconds) / 60
                print(f"step {self.step}  loss {mean:.4f}  {rate:,.0f} tok/s  {self.tokens / 1e6:.1f}M  "
                      f"{left:.1f} min left", flush=True)  # fmt: skip
                shown, since, losses = now, 0, []
            if now - saved > self.options.save_every:
                self.save()
                saved = now
        self.save()

    def update(self, loss_fn: object, batch: Tensor, factor: float) -> Tensor:
        """One optimizer step; returns the loss, detached."""
        assert callable(loss_fn)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            loss: Tensor = loss_fn(self.model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        peaks = (self.options.matrix_lr, self.options.other_lr)
        for optimizer, peak in zip(self.optimizers, peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.detach()


def parse(arguments: list[str] | None = None) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m esamp.models.train", description="Train the Countdown model.")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model and the checkpoint")
    parser.add_argument("--minutes", type=float, default=Options.minutes, help="wall time of the training, resumes included")
    parser.add_argument("--device", default=Options.device, help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--width", type=int, default=Options.width, help="hidden size")
    parser.add_argument("--layers", type=int, default=Options.layers)
    parser.add_argument("--heads", type=int, default=Options.heads, help="width / heads is best a multiple of 32")
    parser.add_argument("--rows", type=int, default=Options.rows, help="rows per batch (0: 16 on the CPU, 64 on CUDA)")
    parser.add_argument("--matrix-lr", type=float, default=Options.matrix_lr, help="peak learning rate of Muon")
    parser.add_argument("--other-lr", type=float, default=Options.other_lr, help="peak learning rate of AdamW")
    parser.add_argument("--seed", type=int, default=Options.seed)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="without torch.compile")
    return Options(**vars(parser.parse_args(arguments)))


def main() -> None:
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    set_threads()
    Trainer(options).train()


if __name__ == "__main__":
    main()
