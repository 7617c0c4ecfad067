"""Where the environment's key may go: a study's file may be a stranger's, and so may be the servers that it names."""

from collections.abc import Collection

from esamp.engines import registry as engines
from esamp.engines.openai.endpoint import check_key, place
from esamp.errors import InputError
from esamp.quoting import shown
from esamp.study.config import Study
from esamp.study.places import at, entry


def check_keys(study: Study, allowed: Collection[str] = ()) -> None:
    """Refuse a study that would send the key to a server which neither the environment nor `allowed` names.

    Raises:
        InputError: names the place in the file, and how to allow it; or an address is allowed that no model has.
    """
    servers = [model.base_url for model in study.models if engines.ENTRIES[model.engine].remote and model.base_url]
    for number, model in enumerate(study.models, 1):
        if engines.ENTRIES[model.engine].remote and model.base_url:
            with at(entry("models", number)):
                check_key(model.base_url, allowed)
    for address in allowed:
        if place(address) not in map(place, servers):
            raise InputError(
                f"--send-key-to {shown(address)}: no model of this study is at this address; the study names "
                f"{', '.join(map(shown, servers)) or 'no server'}"
            )
