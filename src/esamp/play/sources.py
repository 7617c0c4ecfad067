"""`Source`: where the samples of the page come from."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import ClassVar

from transformers import PreTrainedTokenizerBase
from typing_extensions import override

from esamp.engines import registry
from esamp.engines.base import Completion, Request, completions
from esamp.engines.checks import check_active
from esamp.engines.hf import HFEngine
from esamp.engines.hf.following import OnStep
from esamp.engines.openai import OpenAIEngine
from esamp.play.program import Origin

INTERVAL = 0.25
"""Seconds between two checks while a server answers."""


class Source(ABC):
    """Draws samples, one request at a time."""

    measures: ClassVar[bool]
    """whether it reports tokens while they are drawn, and measures them"""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin

    @property
    @abstractmethod
    def name(self) -> str:
        """Where the samples come from, for the page's head."""

    @property
    @abstractmethod
    def chats(self) -> bool:
        """Whether a prompt is sent as a user's message."""

    @property
    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The model's tokenizer, if the source measures."""

    @abstractmethod
    def draw(self, request: Request, on_step: OnStep, check: Callable[[], None]) -> Completion:
        """Draw a request's samples.

        Args:
            request: of any method that needs no search.
            on_step: called after each decode step if the source measures; an exception of it ends the drawing.
            check: called a few times a second if the source does not measure; an exception of it ends the drawing.

        Raises:
            RequestError: the request cannot be answered.
            InactiveMethodError: the method should have acted and did not.
        """


class LocalModel(Source):
    """A model in this process, on the transformers engine."""

    measures = True

    def __init__(self, origin: Origin) -> None:
        """Load the model.

        Raises:
            InputError: it cannot be found or loaded.
            OptionError: a device or dtype that cannot be used.
        """
        super().__init__(origin)
        self._engine = HFEngine.load(origin.model, device=origin.device, dtype=origin.dtype, trace=True)

    @property
    @override
    def name(self) -> str:
        return str(self.origin.model)

    @property
    @override
    def chats(self) -> bool:
        return self._engine.chats if self.origin.chat is None else self.origin.chat

    @property
    @override
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self._engine.tokenizer

    @override
    def draw(self, request: Request, on_step: OnStep, check: Callable[[], None]) -> Completion:
        [completion] = completions(self._engine.outcomes([request], on_step=on_step))
        check_active(completion)
        return completion


class ServerSource(Source):
    """An OpenAI-compatible server, such as one of `esamp serve`. Its answers come whole."""

    measures = False

    def __init__(self, origin: Origin) -> None:
        """Connect once, so that a wrong address is an error at the start.

        Raises:
            EsampError: there is no such server, or it does not serve the model; see `OpenAIEngine.load`.
        """
        super().__init__(origin)
        with self._connected() as engine:
            self._model = engine.info.model

    @property
    @override
    def name(self) -> str:
        return f"{self._model} at {self.origin.endpoint}"

    @property
    @override
    def chats(self) -> bool:
        return bool(self.origin.chat)

    @property
    @override
    def tokenizer(self) -> None:
        return None

    @override
    def draw(self, request: Request, on_step: OnStep, check: Callable[[], None]) -> Completion:
        with ThreadPoolExecutor(1) as thread, self._connected() as engine:  # leaving cancels what is in flight
            answer = thread.submit(_only, engine, request)
            while not wait([answer], timeout=INTERVAL).done:
                check()
            completion = answer.result()
        check_active(completion)
        return completion

    def _connected(self) -> OpenAIEngine:
        address = self.origin.endpoint
        registry.check("openai", device="auto", dtype="auto", base_url=address)
        return OpenAIEngine.load(self.origin.model, base_url=address)


def _only(engine: OpenAIEngine, request: Request) -> Completion:
    [completion] = completions(engine.outcomes([request]))
    return completion
