"""Reward models: Hugging Face sequence classifiers with one output, as scorers."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from esamp.engines.base import Content
from esamp.errors import InputError, OptionError, PromptError

ROWS = 8
"""Texts of one forward pass."""


@lru_cache(maxsize=1)  # every prompt of a run uses the same model, and two large ones may not fit into memory
def load(source: str, device: str) -> "RewardModel":
    """The reward model in a folder or on the hub, on `device` (``auto``: CUDA if there is one).

    The last model is cached, so later changes in its folder have no effect.

    Raises:
        InputError: the model cannot be loaded.
        OptionError: the model has more than one output, or there is no such device.
    """
    target = _device(device)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        model = AutoModelForSequenceClassification.from_pretrained(
            source, dtype=torch.float32 if target.type == "cpu" else "auto"
        )
    except (OSError, ValueError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(
            f"reward model {source!r} cannot be loaded: {first} -- give the folder or the hub name of a sequence "
            "classification model"
        ) from error
    if model.config.num_labels != 1:
        raise OptionError(f"reward model {source!r} has {model.config.num_labels} outputs: a reward is one number")
    module: nn.Module = model
    module.to(target)
    return RewardModel(model.eval(), tokenizer)


class RewardModel:
    """Scores texts by the single output of a sequence classifier, without an activation."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """`model` must be in evaluation mode."""
        self._model, self._tokenizer = model, tokenizer
        self._rows = ROWS
        if tokenizer.pad_token_id is None:
            self._rows = 1
        else:
            model.config.pad_token_id = tokenizer.pad_token_id

    def __call__(self, prompt: Content, texts: Sequence[str]) -> list[float]:
        """The rewards of `texts` as answers to `prompt`.

        In a chat, the text becomes the assistant's message and all go through the tokenizer's template. To a plain
        prompt the text is appended.

        Raises:
            PromptError: the prompt is a chat and there is no template, or a text is too long for the model.
        """
        rows = [self._encode(prompt, text) for text in texts]
        scores: list[float] = []
        for start in range(0, len(rows), self._rows):
            scores += self._forward(rows[start : start + self._rows])
        return scores

    def _encode(self, prompt: Content, text: str) -> list[int]:
        if isinstance(prompt, str):
            ids = list(self._tokenizer(prompt + text).input_ids)
        elif self._tokenizer.chat_template is None:
            raise PromptError("the prompt is a chat, but the reward model has no chat template: give a plain prompt")
        else:
            turns = [*(dict(turn) for turn in prompt), {"role": "assistant", "content": text}]
            whole = self._tokenizer.apply_chat_template(turns, tokenize=False)
            ids = list(self._tokenizer(str(whole), add_special_tokens=False).input_ids)
        limit = self._context
        if limit is not None and len(ids) > limit:
            raise PromptError(
                f"a text of {len(ids)} tokens with its prompt exceeds the reward model's context of {limit}"
            )
        return ids

    @property
    def _context(self) -> int | None:
        """Most tokens that the model accepts; None for models without a limit."""
        try:
            return int(self._model.config.get_text_config(decoder=True).max_position_embeddings)
        except AttributeError:
            return None

    @torch.no_grad()
    def _forward(self, rows: Sequence[list[int]]) -> list[float]:
        longest = max(map(len, rows))
        pad = self._tokenizer.pad_token_id or 0
        ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        device = self._model.device
        logits = self._model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits  # [R, 1]
        scores: list[float] = logits.squeeze(-1).double().tolist()
        return scores


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise OptionError(f"device = {name!r} cannot be used: {str(error).strip().splitlines()[0]}") from error
    return device
