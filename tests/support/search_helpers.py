"""What the tests of several searches share: a chat, a small chat model, and replies in the format of `verbalized`."""

from esamp.engines.base import Completion
from esamp.engines.hf import HFEngine
from support import hf_models

CHAT = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a tree."})


def chat_model() -> HFEngine:
    """A random model with a chat template, one token per character."""
    tokenizer = hf_models.small_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}|{% endfor %}assistant: "
    return HFEngine(hf_models.small("llama", max_position_embeddings=2048), tokenizer)


def tagged(*answers: tuple[str, float]) -> str:
    """Answers and their probabilities in tags."""
    return "".join(f"<response><text>{text}</text><probability>{p}</probability></response>" for text, p in answers)


def texts(completion: Completion) -> list[str]:
    return [sample.text for sample in completion.samples]
