"""Access to the Hugging Face hub with a short timeout and without the hub library's retries and their messages."""

import difflib
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined]  # httpx's or httpx2's
from huggingface_hub.utils import logging as hub_logging

from esamp.errors import InputError
from esamp.files import exists
from esamp.models import NAMES
from esamp.models.store import WEIGHTS, say

PATIENCE = 4.0
"""Seconds to wait for an answer of the hub."""
NEEDED = ("config.json", "generation_config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json")
FILES = (*NEEDED, "chat_template.jinja", "special_tokens_map.json", "vocab.json", "merges.txt")


class HubError(Exception):
    """The hub does not have the model, or cannot be reached. The message is the reason, for the message of an error."""


def fetch(name: str, target: Path) -> dict[str, str]:
    """Copy the model `name` into the folder `target`, from the hub's local cache if it is there, else from the hub.

    Returns the manifest's entries about the source.

    Raises:
        HubError: neither has it.
    """
    snapshot = _cached(name) or _downloaded(name)
    for file in FILES:
        if (snapshot / file).exists():
            _link_or_copy((snapshot / file).resolve(), target / file)
    return {"source": "hub", "repository": name, "revision": snapshot.name, "endpoint": constants.ENDPOINT}


def find(name: str) -> None:
    """Check that `fetch` would find the model, without downloading it.

    Raises:
        HubError: it would not.
    """
    if _cached(name) is None:
        revision(name)


def check(name: str | Path) -> None:
    """Refuse a model that is neither a folder nor on the hub, before a library retries its download for a minute.

    Raises:
        InputError: there is no such model, or the hub cannot be reached and the model is not in its local cache.
    """
    name = str(name)
    if exists(Path(name)) or constants.HF_HUB_OFFLINE:
        return
    try:
        if isinstance(try_to_load_from_cache(name, "config.json"), str):
            return
        revision(name)
    except HFValidationError:  # a path, or another library's notation
        return
    except HubError as error:
        raise InputError(
            f"model {name!r} cannot be loaded: it is not a folder, and {error} -- {remedy(name)}"
        ) from error


def check_named(name: str) -> None:
    """Refuse a model that is neither one of ours, nor a folder, nor on the hub. Downloads nothing.

    Raises:
        InputError: there is no such folder or model, or the hub cannot be reached and its cache has none.
    """
    if name in NAMES:
        return
    if name.startswith(("/", "./", "../", "~")) and not (exists(Path(name)) and Path(name).is_dir()):
        raise InputError(f"model {name!r} cannot be loaded: there is no such folder -- {remedy(name)}")
    check(name)


def remedy(name: str | Path) -> str:
    """What to do about a model that cannot be loaded, for messages; suggests a similar name."""
    close = difflib.get_close_matches(str(name).lower(), NAMES, n=1, cutoff=0.7)
    meant = f"did you mean {close[0]!r}? Otherwise " if close else ""
    return (
        f"{meant}give a folder with config.json and weights, one of {', '.join(NAMES)}, "
        "or a hub name on a machine that reaches the hub"
    )


def revision(name: str) -> str:
    """The commit of a model that the hub has now.

    Raises:
        HubError: it has no such model, or does not answer within `PATIENCE`.
    """
    if constants.HF_HUB_OFFLINE:
        raise HubError("the Hugging Face hub is switched off by HF_HUB_OFFLINE")
    answer: list[str | HubError] = []
    thread = threading.Thread(target=lambda: answer.append(_ask(name)), daemon=True)
    thread.start()
    thread.join(PATIENCE + 1)  # resolving the host's name has no timeout
    if not answer:
        raise HubError(f"the Hugging Face hub at {constants.ENDPOINT} does not answer")
    if isinstance(answer[0], HubError):
        raise answer[0]
    return answer[0]


def _ask(name: str) -> str | HubError:
    try:
        found = HfApi().model_info(name, timeout=PATIENCE).sha
    except (RepositoryNotFoundError, GatedRepoError):
        return HubError(f"the Hugging Face hub has no public model {name!r}")
    except HfHubHTTPError as error:
        return HubError(f"the Hugging Face hub at {constants.ENDPOINT} failed: {_first_line(error)}")
    except (TransportError, OSError, ValueError) as error:
        return HubError(f"the Hugging Face hub at {constants.ENDPOINT} cannot be reached ({_first_line(error)})")
    return found or HubError(f"the Hugging Face hub at {constants.ENDPOINT} names no revision of {name!r}")


def _cached(name: str) -> Path | None:
    """The snapshot in the hub's local cache; None if it is incomplete."""
    try:
        snapshot = Path(snapshot_download(name, local_files_only=True, allow_patterns=list(FILES)))
    except (OSError, ValueError):
        return None
    return snapshot if all((snapshot / file).exists() for file in NEEDED) else None


def _downloaded(name: str) -> Path:
    revision(name)
    say(f"downloading {name} from {constants.ENDPOINT}, once (about 270 MB)")
    try:
        with _quiet():
            snapshot = Path(snapshot_download(name, allow_patterns=list(FILES)))
    except (TransportError, OSError, ValueError) as error:
        raise HubError(f"the download from {constants.ENDPOINT} failed ({_first_line(error)})") from error
    if missing := [file for file in NEEDED if not (snapshot / file).exists()]:
        raise HubError(f"the Hugging Face hub has no {', '.join(missing)} of {name!r}")
    return snapshot


@contextmanager
def _quiet() -> Iterator[None]:
    """Turn off the hub library's messages about retries."""
    level = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        hub_logging.set_verbosity(level)


def _link_or_copy(source: Path, target: Path) -> None:
    """A hard link to the file if the file system supports it, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
