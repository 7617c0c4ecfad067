"""`Arm`: a method with its options and the settings of the sampler, under the label that reports show."""

from dataclasses import dataclass

from esamp.engines.base import Content, Request
from esamp.options import Options
from esamp.sampling import Sampling


@dataclass(frozen=True)
class Arm:
    """One way to decode."""

    label: str
    method: str
    options: Options
    sampling: Sampling

    def request(self, id: str, prompt: Content, n: int, seed: int) -> Request:
        """The engine's request for `n` samples of one prompt."""
        return Request(id, prompt, n, self.sampling, self.method, self.options, seed)
