"""What would keep a study from running, looked for before anything is run: engines, models, methods, the report."""

from collections.abc import Collection, Mapping

from esamp.engines import registry as engines
from esamp.errors import UnsupportedError
from esamp.methods import registry as methods
from esamp.models import hub
from esamp.study.config import Study
from esamp.study.grid import chats
from esamp.study.keys import check_keys
from esamp.study.places import at, entry
from esamp.study.requirements import check_report
from esamp.study.run import Problems
from esamp.study.specs import ModelSpec


def check(
    study: Study, problems: Mapping[str, Problems], *, report: bool = True, send_key_to: Collection[str] = ()
) -> None:
    """Refuse a study that cannot run to its end, or with `report` one that cannot be reported.

    No model is loaded and no server is asked; an embedding model that is not on this machine is fetched. Of the
    servers that only the file names those in `send_key_to` may get the environment's key.

    Raises:
        EsampError: names the place in the file, what is wrong and what to do.
    """
    check_keys(study, send_key_to)
    for number, model in enumerate(study.models, 1):
        with at(entry("models", number)):
            _check_model(study, model)
    if study.second_model is not None:
        with at(f"second_model = {study.second_model!r}"):
            hub.check_named(study.second_model)
    if report:
        check_report(study, texts=not all(each.task.private for each in problems.values()))


def _check_model(study: Study, model: ModelSpec) -> None:
    where = dict(device=model.device, dtype=model.dtype, base_url=model.base_url)
    engine = engines.check(model.engine, **where, trace=study.traces)
    if not engine.remote:
        hub.check_named(model.model)
    chats(model)
    for arm in study.arms:
        if lacking := methods.get(arm.method).needs - engine.provides:
            able = ", ".join(each.name for each in engines.ENTRIES.values() if not lacking - each.provides)
            raise UnsupportedError(
                f"method {arm.label!r} needs {min(lacking)}, which engine {model.engine!r} lacks: leave it out, or use "
                f"engine {able}"
            )
