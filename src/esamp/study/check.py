"""Checks before anything is run: whether the engines, models, methods and the report of a study can work."""

from collections.abc import Collection, Mapping

from esamp.engines import registry as engines
from esamp.errors import UnsupportedError
from esamp.methods import registry as methods
from esamp.models import hub
from esamp.study.api_key_check import check_api_key
from esamp.study.config import Study
from esamp.study.locations import ErrorLocation, table_location
from esamp.study.requirements import check_report
from esamp.study.run import TaskProblems
from esamp.study.schema import ModelSpec


def check(
    study: Study, problems: Mapping[str, TaskProblems], *, report: bool = True, send_key_to: Collection[str] = ()
) -> None:
    """Refuse a study that cannot run to its end or, with `report`, whose report would fail.

    No model is loaded and no server is contacted. An embedding model that is not on this machine is downloaded.

    Args:
        study: the study to check.
        problems: from `esamp.study.run.load_tasks`.
        report: whether to check the requirements of the report as well.
        send_key_to: servers named only by the study's file that may get the API key of the environment.

    Raises:
        EsampError: the message names the location in the file, the problem and what to do.
    """
    check_api_key(study, send_key_to)
    for number, model in enumerate(study.models, 1):
        with ErrorLocation(table_location("models", number)):
            _check_model(study, model)
    if study.second_model is not None:
        with ErrorLocation(f"second_model = {study.second_model!r}"):
            hub.check_named(study.second_model)
    if report:
        check_report(study, texts=not all(loaded.task.private for loaded in problems.values()))


def _check_model(study: Study, model: ModelSpec) -> None:
    options = dict(device=model.device, dtype=model.dtype, base_url=model.base_url)
    engine = engines.check(model.engine, **options, trace=study.traces)
    if not engine.remote:
        hub.check_named(model.model)
    model.chats()  # an error if the model's tokenizer cannot be loaded
    for arm in study.arms:
        if missing := methods.get(arm.method).needs - engine.provides:
            able = ", ".join(entry.name for entry in engines.ENTRIES.values() if not missing - entry.provides)
            raise UnsupportedError(
                f"method {arm.label!r} needs {min(missing)}, which engine {model.engine!r} lacks: leave it out, or use "
                f"engine {able}"
            )
