"""Stopping criteria: stop texts, and a report of the rows that each step finishes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList, StopStringCriteria

from esamp.errors import OptionError


class GeneratedTokensCriterion(StoppingCriteria):
    """Applies another criterion to the generated tokens alone, so that no stop text begins within the prompt."""

    def __init__(self, criterion: StoppingCriteria) -> None:
        """For one generate call."""
        self._criterion = criterion
        self._prompt: int | None = None  # tokens of the prompt, padding included

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """A mask `[B]` of the rows that end here. At the first call each row has one generated token."""
        if self._prompt is None:
            self._prompt = input_ids.shape[1] - 1
        done: Tensor = self._criterion(input_ids[:, self._prompt :], scores, **kwargs)
        return done


class DecodedStopTexts(StoppingCriteria):
    """Stop texts for tokenizers that ``StopStringCriteria`` does not support: decodes each row's last tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> None:
        """A row ends when its newest token completes one of `stops`."""
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._window = max(map(len, stops)) + 1  # tokens; each adds a character or more

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """A mask `[B]` of the rows that end here."""
        tails = input_ids[:, -self._window :].tolist()
        now = self._tokenizer.batch_decode(tails, skip_special_tokens=False)
        before = self._tokenizer.batch_decode([tail[:-1] for tail in tails], skip_special_tokens=False)
        ended = [self._occurrences(text) > self._occurrences(old) for text, old in zip(now, before, strict=True)]
        return torch.tensor(ended, device=input_ids.device)

    def _occurrences(self, text: str) -> int:
        return sum(text.count(stop) for stop in self._stops)


class ReportingCriteria(StoppingCriteriaList):
    """The stopping criteria of a call, which also report each step's tokens and the rows that they finish."""

    def __init__(self, criteria: StoppingCriteriaList, report: Callable[[Tensor, Tensor], None]) -> None:
        """`report` gets the newest tokens `[B]` and a mask `[B]` of the rows that are done with them."""
        super().__init__(criteria)
        self._report = report

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Apply all criteria, report, and return the mask `[B]` of finished rows."""
        done: Tensor = super().__call__(input_ids, scores, **kwargs)
        self._report(input_ids[:, -1], done)
        return done


def with_stop_strings(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of ``generate`` with ``stop_strings`` turned into a stopping criterion.

    transformers does not pass the tokenizer on to a ``custom_generate`` function, so it cannot do this itself.

    Raises:
        OptionError: there is no tokenizer among the arguments.
    """
    stop_strings, tokenizer = kwargs.get("stop_strings"), kwargs.pop("tokenizer", None)
    if stop_strings is None:
        return kwargs
    if tokenizer is None:
        raise OptionError("stop_strings needs tokenizer=... as well")
    criteria = StoppingCriteriaList(kwargs.pop("stopping_criteria", None) or [])
    stops = [stop_strings] if isinstance(stop_strings, str) else list(stop_strings)
    criteria.append(stop_criterion(tokenizer, stops))
    return {**kwargs, "stopping_criteria": criteria, "stop_strings": None}


def stop_criterion(tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> StoppingCriteria:
    """A criterion that ends a row when its newest token completes one of `stops`."""
    try:
        return StopStringCriteria(tokenizer, list(stops))
    except ValueError:  # raised for tokenizers whose tokens cannot be spelled as text
        return DecodedStopTexts(tokenizer, list(stops))
