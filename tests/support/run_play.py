"""Serves the playground in a process of its own, whose warnings are not errors, as Gradio's are in the tests' process.

Arguments: a model, and 'measured' or 'plain' for the scorer. It prints the page's address, then answers each line of
its input with the number of runs that have not ended. It ends with its input.
"""

import sys
import threading

import uvicorn

from esamp.analysis.text_scores import TextScorer
from esamp.play.playground import Playground
from esamp.play.program import Origin
from esamp.play.server import address, application, listen
from esamp.play.sources import LocalModel


def main(model: str, scorer: str) -> None:
    """Serve on a free port of 127.0.0.1."""
    measures = TextScorer.start() if scorer == "measured" else TextScorer(None, words=False)
    playground = Playground(LocalModel(Origin(model)), measures)
    with listen("127.0.0.1", 0) as listening:
        app = application(playground, token=None, local=True)
        config = uvicorn.Config(app, log_level="critical", lifespan="on", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        say(address(listening, "127.0.0.1", None))
        for _ in sys.stdin:
            say(str(playground.running))
        server.should_exit = True
        thread.join()
        playground.close()


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
