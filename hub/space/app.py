"""The playground as a Hugging Face Space: a public page, which needs no token.

The model is the one that the variable ``ESAMP_MODEL`` of the Space names, by default a small chat model.
"""

import os

from esamp.analysis.text_scores import TextScorer
from esamp.play.playground import Playground
from esamp.play.program import Origin
from esamp.play.server import listen, serve
from esamp.play.sources import LocalModel

MODEL = os.environ.get("ESAMP_MODEL", "smollm2")
PORT = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
"""The port at which a Space expects its page."""

if __name__ == "__main__":
    with listen("0.0.0.0", PORT) as listening:
        playground = Playground(LocalModel(Origin(MODEL)), TextScorer.start())
        serve(playground, listening, token=None, local=False)
