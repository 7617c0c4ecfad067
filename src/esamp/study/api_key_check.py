"""Which servers may get the API key of the environment. A study may come from a stranger and name any server."""

from collections.abc import Collection

from esamp.engines import registry as engines
from esamp.engines.openai.endpoint import check_key, place
from esamp.errors import InputError
from esamp.quoting import shown
from esamp.study.config import Study
from esamp.study.locations import ErrorLocation, table_location


def check_api_key(study: Study, allowed: Collection[str] = ()) -> None:
    """Refuse a study that would send the key to a server that neither the environment nor `allowed` names.

    Args:
        study: the study that names the servers.
        allowed: addresses of further servers that may get the key.

    Raises:
        InputError: the key would go to another server (the message names the location in the file and how to allow
            the server), or no model of the study has an address of `allowed`.
    """
    servers = [model.base_url for model in study.models if engines.ENTRIES[model.engine].remote and model.base_url]
    for number, model in enumerate(study.models, 1):
        if engines.ENTRIES[model.engine].remote and model.base_url:
            with ErrorLocation(table_location("models", number)):
                check_key(model.base_url, allowed)
    for address in allowed:
        if place(address) not in map(place, servers):
            raise InputError(
                f"--send-key-to {shown(address)}: no model of this study is at this address; the study names "
                f"{', '.join(map(shown, servers)) or 'no server'}"
            )
