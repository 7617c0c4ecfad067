"""`RunFindings`: the figures of a finished run and the map of its samples."""

from collections.abc import Sequence
from dataclasses import dataclass

from esamp.analysis.text_scores import TextScorer
from esamp.compare.chat_demo import ChatResult
from esamp.compare.chat_demo_view import remark, table
from esamp.engines.base import Completion
from esamp.report.pages import ComparisonTable
from esamp.report.pages.projection import Plane, plane
from esamp.study.arm import Arm


@dataclass(frozen=True)
class RunFindings:
    """What was measured of all samples of a run."""

    table: ComparisonTable
    remarks: tuple[str, ...]
    """what the samples of each arm amount to, in words"""
    texts: tuple[tuple[str, ...], ...]
    """the samples of each arm"""
    map: Plane | None
    """the embeddings of all texts, arm by arm; None without sentence embeddings"""
    missing: tuple[str, ...]
    """a sentence for each measure that is not available, with the package to install"""


def find(prompt: str, arms: Sequence[Arm], drawn: Sequence[Completion], scorer: TextScorer) -> RunFindings:
    """Measure a run.

    Args:
        prompt: that was answered.
        arms: ways to decode; the last one is emphasised.
        drawn: completion of each arm.
        scorer: measures the texts; its prompts are set here.
    """
    scorer.set_prompts([prompt])
    texts = tuple(tuple(sample.text for sample in completion.samples) for completion in drawn)
    results = [
        ChatResult(arm, (completion,), (scorer.score(prompt, own),))
        for arm, completion, own in zip(arms, drawn, texts, strict=True)
    ]
    vectors = scorer.vectors([text for own in texts for text in own])
    summary = table(results, scorer, marked=arms[-1].label)
    remarks = tuple(remark(result, 0) for result in results)
    return RunFindings(summary, remarks, texts, None if vectors is None else plane(vectors), scorer.missing)
