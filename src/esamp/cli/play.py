"""`esamp play`: a web page with plain sampling and ESamp side by side."""

from typing import Literal

from pydantic import Field

from esamp.cli.flags import FlagGroup, with_flags
from esamp.explorer.config import with_default
from esamp.models import SMOLLM2
from esamp.options import Options
from esamp.runs.job import ModelOptions

PORT = 7860


class PlayOptions(Options):
    """Which model the page uses, and where it is served."""

    model: str = with_default(ModelOptions, "model", SMOLLM2)
    chat: bool | None = with_default(ModelOptions, "chat", None)
    device: str = with_default(ModelOptions, "device", "auto")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = with_default(ModelOptions, "dtype", "auto")
    endpoint: str = ""
    """address of a server, as in http://127.0.0.1:8000/v1, to draw from instead of a model in this process; its only
    model, or the one that --model names"""
    host: str = "127.0.0.1"
    """address to serve on; any but this machine's own needs the token that is printed"""
    port: int = Field(default=PORT, ge=0, le=65535)
    """port to serve on; 0 finds a free one"""


@with_flags(options=FlagGroup("Options", PlayOptions))
def command(options: PlayOptions) -> None:
    """Serve a web page that shows plain sampling and ESamp side by side while they draw.

    The page shows the samples of both as they grow, the novelty of each token, a map of the samples, how many
    different texts they amount to, and the Python program that draws the same. It needs no network. Ctrl-C ends it.

    Examples:
    esamp play
    esamp play --model Qwen/Qwen2.5-0.5B-Instruct --port 8001
    esamp play --endpoint http://127.0.0.1:8000/v1 --chat
    """
    from esamp.cli import play_run  # imports torch and gradio

    play_run.play(options)
