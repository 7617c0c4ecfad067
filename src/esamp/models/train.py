"""Train the embedded Countdown model from random weights.

    python -m esamp.models.train --out DIR [--minutes 55] [--device auto] [--width 192] [--resume]

The budget is wall time: the learning rate reaches zero when the minutes are over. Every two minutes the model and the
state of the training are written to DIR; `--resume` continues from there, and the minutes already trained count.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from esamp.tasks.countdown.problem import Rules
from esamp.tasks.countdown.trace import Habits

from .data import PAD, Traces, stream
from .scale import unit_residual_stream
from .tokenizer import build_tokenizer

CHECKPOINT = "checkpoint.pt"
TYPICAL = "Numbers 3 5 8 9 target 24\ntry 9 - 3 = 6 left 5 8 6\n8 + 5 = 13 left 6 13\n13 - 6 = 7 not 24\n"


@dataclass(frozen=True)
class TrainingSettings:
    """The settings; the command line is derived from these fields."""

    out: Path = field(metadata={"help": "folder for the model and the checkpoint"})
    minutes: float = field(default=55.0, metadata={"help": "wall time of the training, resumes included"})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, cuda:1, ..."})
    width: int = field(default=192, metadata={"help": "hidden size"})
    layers: int = field(default=4, metadata={"help": "decoder layers"})
    heads: int = field(default=6, metadata={"help": "attention heads; width / heads is best a multiple of 32"})
    context: int = field(default=512, metadata={"help": "longest trace in tokens"})
    tokens: int = field(default=0, metadata={"help": "tokens per batch (0: 4096 on the CPU, 65536 on CUDA)"})
    matrix_lr: float = field(default=6e-3, metadata={"help": "peak learning rate of Muon"})
    other_lr: float = field(default=3e-3, metadata={"help": "peak learning rate of AdamW"})
    seed: int = field(default=0, metadata={"help": "seed of the weights and the traces"})
    save_every: float = field(default=120.0, metadata={"help": "seconds between two checkpoints"})
    resume: bool = field(default=False, metadata={"help": "continue from the checkpoint in --out"})
    no_compile: bool = field(default=False, metadata={"help": "without torch.compile: slower, but starts at once"})


def parse(arguments: list[str] | None = None) -> TrainingSettings:
    parser = argparse.ArgumentParser(prog="python -m esamp.models.train", description="Train the Countdown model.")
    types: dict[object, type] = {"Path": Path, "float": float, "int": int, "str": str}
    for option in fields(TrainingSettings):
        name, text = f"--{option.name.replace('_', '-')}", option.metadata["help"]
        if option.default is False:
            parser.add_argument(name, action="store_true", help=text)
        else:
            required = option.default is MISSING
            default = None if required else option.default
            suffix = "" if required else " (%(default)s)"
            parser.add_argument(name, type=types[option.type], required=required, default=default, help=text + suffix)
    return TrainingSettings(**vars(parser.parse_args(arguments)))


def pick_device(name: str) -> torch.device:
    """The named device; for "auto" CUDA where present, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def set_threads() -> None:
    """Use one thread per core that this process may run on, unless `OMP_NUM_THREADS` is set."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1)


def new_model(options: TrainingSettings, tokenizer: PreTrainedTokenizerFast, device: torch.device) -> LlamaForCausalLM:
    """A freshly initialised Llama with untied output head and head size width / heads."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=options.width,
        intermediate_size=round(options.width * 2.75 / 32) * 32,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        num_key_value_heads=options.heads,
        max_position_embeddings=options.context,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    # Attention as matmul + softmax: on the CPU the backward pass of the fused kernel is several times slower.
    config._attn_implementation = "sdpa" if device.type == "cuda" else "eager"
    model = LlamaForCausalLM(config)
    nn.Module.to(model, device)
    return model


def loss_of(model: nn.Module, ids: Tensor) -> Tensor:
    """Mean cross-entropy of the next token; ids: (rows, length), padded on the right with PAD."""
    length = ids.shape[1] - 1
    mask = (
        None if ids.is_cuda else torch.full((1, 1, length, length), -1e9).triu(1)
    )  # the fused kernel is causal by itself
    logits = model(input_ids=ids[:, :-1], attention_mask=mask, use_cache=False).logits
    return F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), ignore_index=PAD)


def optimizers(model: nn.Module, options: TrainingSettings) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embedding, head and norms."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        inside = ".layers." in name and parameter.ndim == 2
        (matrices if inside else others).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=options.matrix_lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=options.other_lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def schedule(progress: float) -> float:
    """Learning-rate factor: linear warm-up over the first 2 % of the time, constant to 40 %, then linear decay to 0."""
    return min(progress / 0.02, 1.0, max(0.0, (1.0 - progress) / 0.6))


class Trainer:
    """The model, its optimizers and the progress of the training, all of which a checkpoint stores."""

    def __init__(self, options: TrainingSettings) -> None:
        self.options = options
        self.device = pick_device(options.device)
        torch.manual_seed(options.seed)
        self.rules, habits = Rules(), Habits()
        self.tokenizer = build_tokenizer(self.rules.ceiling, options.context)
        self.model = new_model(options, self.tokenizer, self.device)
        self.optimizers = optimizers(self.model, options)
        self.seconds, self.step, self.tokens, self.resumed = 0.0, 0, 0, 0
        if options.resume:
            self.load()
        tokens = options.tokens or (65536 if self.device.type == "cuda" else 4096)
        vocab = self.tokenizer.get_vocab()
        seed = options.seed + 1000 * self.resumed  # a resumed run draws new traces
        self.dataset = Traces(vocab, tokens, options.context, seed, self.rules, habits)

    def save(self) -> None:
        """Write the model as transformers loads it (bfloat16), and the state of the training."""
        out = self.options.out
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": (self.seconds, self.step, self.tokens, self.resumed),
        }
        torch.save(state, out / f"{CHECKPOINT}.new")
        (out / f"{CHECKPOINT}.new").replace(out / CHECKPOINT)
        export = LlamaForCausalLM(copy.deepcopy(self.model.config))
        export.load_state_dict(self.model.state_dict())
        unit_residual_stream(export, self.tokenizer(TYPICAL, return_tensors="pt").input_ids)
        export.generation_config.update(do_sample=True, temperature=1.0, top_k=0, top_p=1.0)
        nn.Module.to(export, torch.bfloat16)
        export.save_pretrained(out)
        self.tokenizer.save_pretrained(out)

    def load(self) -> None:
        """Restore the checkpoint in the output folder."""
        state = torch.load(self.options.out / CHECKPOINT, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.seconds, self.step, self.tokens, self.resumed = state["progress"]
        self.resumed += 1

    def batches(self) -> Iterator[Tensor]:
        """Batches on the device, from enough processes that generating traces does not slow down the training."""
        workers = min(8, max(1, (os.cpu_count() or 1) - 1)) if self.device.type == "cuda" else 1
        for batch in stream(self.dataset, workers):
            yield batch.to(self.device, non_blocking=True)

    def train(self) -> None:
        """Train until the minutes are over, with reports and checkpoints in between."""
        budget = self.options.minutes * 60
        loss_fn = loss_of if self.options.no_compile else torch.compile(loss_of, dynamic=True)
        clock = saved = shown = time.monotonic()
        since, losses = 0, []
        for batch in self.batches():
            progress = self.seconds / budget
            if progress >= 1:
                break
            losses.append(self.update(loss_fn, batch, schedule(progress)))
            count = int(batch.count_nonzero().item())
            self.tokens, since, self.step = self.tokens + count, since + count, self.step + 1
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

    def update(self, loss_fn: Callable[[nn.Module, Tensor], Tensor], batch: Tensor, factor: float) -> Tensor:
        """One optimizer step; returns the loss, detached."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            loss = loss_fn(self.model, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        peaks = (self.options.matrix_lr, self.options.other_lr)
        for optimizer, peak in zip(self.optimizers, peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.detach()


def main() -> None:
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    set_threads()
    Trainer(options).train()


if __name__ == "__main__":
    main()
