"""What the figures show: curves and points by hand, what is drawn of them, files that are always the same."""

import re
import sys
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from esamp.analysis.load import Block
from esamp.analysis.positions import POSITIONS
from esamp.errors import MissingDependencyError
from esamp.extras import install_command
from esamp.metrics.intervals import Interval, bootstrap_mean
from esamp.metrics.vendi import vendi_score
from esamp.report.figures import canvas, figures, plots, series
from esamp.report.figures.contents import block_figures
from esamp.report.figures.styles import COLOURS, arm_styles
from esamp.study import config
from esamp.study.config import Study
from esamp.study.group_measurements import GroupLikelihoods, GroupMeasurements
from esamp.study.records import Record, SampleRecord

HOSTILE = "_$\\frac{1}{$ <script>&amp; \x00\u202e\n\u732b | ]("
TOML = """
name = "by hand"
seeds = [0, 1]
groups = [1, 2, 4]
[[models]]
model = "countdown"
[[tasks]]
task = "countdown"
[[methods]]
method = "vanilla"
[[methods]]
method = "vanilla"
grid = { "sampling.temperature" = [1.5, 0.5] }
[[methods]]
method = "esamp"
"""
KINDS = {"pass-at-k", "similarity", *(f"diversity-over-{across}" for across in ("pass-1", "perplexity", "entropy"))}
ALL = ("vanilla", "vanilla temperature=1.5", "vanilla temperature=0.5", "esamp")


def study(more: str = "") -> Study:
    return config.parse(tomllib.loads(TOML + more))


def group(item: str, right: int, n: int = 4, measured: GroupMeasurements | None = None) -> Record:
    """A group of n, the first `right` of them right; sample i has tokens of its own if it is right."""
    samples = tuple(
        SampleRecord(i, "x", (i, i, i) if i < right else (9, 9, 9), 3, "stop", i < right, None, str(i), "")
        for i in range(n)
    )
    cost = dict(tokens=3 * n, prompt_tokens=5, calls=1, seconds=2.0)
    return Record(item, samples, cost, {}, measured=measured or GroupMeasurements())


def block(
    arms: Mapping[str, Sequence[int]],
    n: int = 4,
    seeds: Sequence[int] = (0, 1),
    measured: GroupMeasurements | None = None,
) -> Block:
    """Right samples of each problem, by arm; the same for every seed."""
    items = tuple(f"p{place}" for place in range(len(next(iter(arms.values())))))
    found = {
        arm: {seed: {p: group(p, c, n, measured) for p, c in zip(items, right, strict=True)} for seed in seeds}
        for arm, right in arms.items()
    }
    return Block("m", "t", n, items, 0, found)


def with_measured(of: Block, measured: Callable[[str, int, str], GroupMeasurements]) -> Block:
    """The same block with `measured(arm, seed, item)`."""
    arms = {
        arm: {
            seed: {item: replace(record, measured=measured(arm, seed, item)) for item, record in own.items()}
            for seed, own in groups.items()
        }
        for arm, groups in of.arms.items()
    }
    return replace(of, arms=arms)


def similarities(**values: float) -> tuple[float, ...]:
    """Values at the first positions, NaN after."""
    own = list(values.values())
    return (*own, *[float("nan")] * (len(POSITIONS) - len(own)))


def lines(axes: Axes, colour: str) -> list[Line2D]:
    return [line for line in axes.get_lines() if line.get_color() == colour]


def xy(line: Line2D) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]


# ---- numbers


def test_both_kinds_of_pass_at_k_by_hand() -> None:
    """One of 4 and 2 of 4 right: C(3, 2) / C(4, 2) = 1/2 and C(2, 2) / C(4, 2) = 1/6 miss at k = 2."""
    whole = block({"vanilla": [1, 2]})
    (curve,) = series.subset_curves(whole)
    assert curve.x == (1, 2, 3, 4)
    assert [each.estimate for each in curve.y] == pytest.approx([3 / 8, (1 / 2 + 5 / 6) / 2, 7 / 8, 1])
    pairs = block({"vanilla": [0, 1]}, n=2)
    points = series.group_points(whole, [whole, pairs])
    assert [(point.x.estimate, point.y.estimate, point.problems) for point in points] == [(2, 0.5, 2), (4, 1.0, 2)]


def test_group_points_count_only_the_curves_own_problems_model_and_task() -> None:
    whole = replace(block({"vanilla": [1, 2]}), items=("p1",))
    pairs = block({"vanilla": [0, 1]}, n=2)
    others = [replace(pairs, model="other"), replace(pairs, task="other"), block({"vanilla": [1, 1]}, n=8)]
    (small, own) = series.group_points(whole, [whole, pairs, *others])
    assert (small.x.estimate, small.y.estimate, small.problems) == (2, 1.0, 1)
    assert own.x.estimate == 4


def test_bands_are_the_reports_intervals() -> None:
    (curve,) = series.subset_curves(block({"vanilla": [0, 1, 1, 2, 3, 4]}))
    values = np.array([0, 0.25, 0.25, 0.5, 0.75, 1.0])
    expected = bootstrap_mean(values, np.random.default_rng(0), resamples=series.BAND_RESAMPLES)
    assert curve.y[0] == expected
    full = bootstrap_mean(values, np.random.default_rng(0))
    assert (expected.low, expected.high) == pytest.approx((full.low, full.high), abs=0.03)


def test_one_problem_gives_no_band() -> None:
    (curve,) = series.subset_curves(block({"vanilla": [1]}, seeds=(0,)))
    assert all(np.isnan([each.low, each.high]).all() for each in curve.y)
    assert [each.estimate for each in curve.y] == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_a_curve_ends_where_a_group_has_too_few_samples() -> None:
    """One group of arm b has only two samples; a search may return fewer than asked for."""
    whole = block({"a": [1, 2], "b": [1, 2]})
    short = {**whole.arms["b"][1], "p0": group("p0", 1, n=2)}
    a, b = series.subset_curves(replace(whole, arms={**whole.arms, "b": {0: whole.arms["b"][0], 1: short}}))
    assert (a.x, b.x) == ((1, 2, 3, 4), (1, 2))
    assert [each.estimate for each in b.y] == pytest.approx([(0.25 + 0.5 + 0.5 + 0.5) / 4, (0.5 + 1 + 5 / 6 * 2) / 4])


def test_large_groups_have_fewer_points() -> None:
    (curve,) = series.subset_curves(block({"vanilla": [1, 5]}, n=100, seeds=(0,)))
    assert curve.x[:16] == tuple(range(1, 17))
    assert curve.x[-1] == 100
    assert len(curve.x) < 30


def test_a_scatter_point_is_two_measures() -> None:
    turned = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)  # two kinds
    own = GroupMeasurements(turned, own=GroupLikelihoods((0.5, 0.5, 1.5, 1.5), (2.0, 2.0, 3.0, 3.0), (3, 3, 3, 3)))
    of = block({"vanilla": [1, 3]}, measured=own)
    name, up = series.diversity(of)
    assert name == "Vendi"
    (point,) = series.scatter_points(of, "pass@1", up)
    assert (point.x.estimate, point.y.estimate) == pytest.approx((0.5, vendi_score(turned)))
    assert point.y.estimate == pytest.approx(2)
    (point,) = series.scatter_points(of, "perplexity", up)
    assert point.x.estimate == pytest.approx(np.e)
    (point,) = series.scatter_points(of, "entropy", up)
    assert point.x.estimate == pytest.approx(2.5)


def test_an_arm_without_a_measure_for_every_problem_has_no_point() -> None:
    of = with_measured(
        block({"vanilla": [1, 2], "esamp": [1, 2]}),
        lambda arm, seed, item: GroupMeasurements(
            None if (arm, seed, item) == ("esamp", 1, "p1") else np.eye(4, dtype="f4")
        ),
    )
    assert series.scatter_points(of, "perplexity", series.diversity(of)[1]) == []
    assert [point.arm for point in series.scatter_points(of, "pass@1", series.diversity(of)[1])] == ["vanilla"]


def test_similarity_uses_the_problems_that_all_arms_have() -> None:
    """Arm a lacks the last of four problems at the second position, arm b three of them: it ends there."""

    def measured(arm: str, seed: int, item: str) -> GroupMeasurements:
        long = item != "p3" if arm == "a" else item == "p0"
        value = 0.1 * int(item[1]) + 0.01 * seed
        return GroupMeasurements(similarity=similarities(first=value, **({"second": value + 0.5} if long else {})))

    of = with_measured(block({"a": [1] * 4, "b": [1] * 4}), measured)
    (a, b), counts = series.similarity_curves(of)
    assert counts == {POSITIONS[0]: 4, POSITIONS[1]: 3}
    assert (a.x, b.x) == (POSITIONS[:2], POSITIONS[:1])
    assert [each.estimate for each in a.y] == pytest.approx([0.155, 0.605])
    assert [each.estimate for each in b.y] == pytest.approx([0.155])


def test_a_position_has_the_same_problems_in_all_arms() -> None:
    """Arm a lacks the last problem at the second position, arm b the one before: two are common."""

    def measured(arm: str, seed: int, item: str) -> GroupMeasurements:
        value = 0.1 * int(item[1]) + (0.3 if arm == "b" else 0)
        long = item != {"a": "p3", "b": "p2"}[arm]
        return GroupMeasurements(similarity=similarities(first=value, **({"second": value} if long else {})))

    (a, b), counts = series.similarity_curves(with_measured(block({"a": [1] * 4, "b": [1] * 4}), measured))
    assert counts == {POSITIONS[0]: 4, POSITIONS[1]: 2}
    assert [each.estimate for each in a.y] == pytest.approx([0.15, 0.05])
    assert [each.estimate for each in b.y] == pytest.approx([0.45, 0.35])


def test_similarity_is_paired_and_ends_where_few_problems_are_common() -> None:
    """Each arm has half of the problems at the second position, but only one of eight is common."""

    def measured(arm: str, seed: int, item: str) -> GroupMeasurements:
        place = int(item[1])
        long = place < 4 if arm == "a" else place in (3, 5, 6, 7)
        return GroupMeasurements(similarity=similarities(first=0.5, **({"second": 0.4} if long else {})))

    lines_, counts = series.similarity_curves(with_measured(block({"a": [1] * 8, "b": [1] * 8}), measured))
    assert [curve.x for curve in lines_] == [POSITIONS[:1]] * 2
    assert counts == {0: 8}


def test_one_seed_without_a_value_drops_the_problem() -> None:
    def measured(arm: str, seed: int, item: str) -> GroupMeasurements:
        return GroupMeasurements(similarity=similarities() if (seed, item) == (1, "p0") else similarities(first=0.5))

    _, counts = series.similarity_curves(with_measured(block({"a": [1] * 4}), measured))
    assert counts == {0: 3}
    assert series.similarity_curves(block({"a": [1]})) == ([], {})


# ---- styles


def test_no_two_coloured_arms_look_the_same() -> None:
    many = study("".join(f'[[methods]]\nmethod = "esamp"\nlabel = "e{i}"\n' for i in range(9)))
    more = study("".join(f'[[methods]]\nmethod = "{name}"\n' for name in ("xtc", "min_p", "fire", "rarity", "dola")))
    for of in (study(), many, more):
        own = arm_styles(of, [arm.label for arm in of.arms])
        loud = [(look.colour, look.marker) for look in own.values() if look.role == "other"]
        assert len(set(loud)) == len(loud)
        assert [own[arm].role for arm in ALL] == ["baseline", "vanilla", "vanilla", "other"]
    many_styles = arm_styles(many, [arm.label for arm in many.arms])
    assert {many_styles[arm.label].colour for arm in many.arms if arm.method == "esamp"} == {COLOURS[0]}


def test_vanilla_against_itself_is_coloured() -> None:
    assert [style.role for style in arm_styles(study(), ALL[:3]).values()] == ["baseline", "other", "other"]


# ---- plots


def drawn(of: Study, blocks: Sequence[Block]) -> dict[str, Canvas]:
    with canvas.style():
        return {each.kind: each.canvas for each in block_figures(of, blocks[-1], blocks)}


def full(arms: Sequence[str] = ALL, problems: int = 6, n: int = 4, graded: bool = True) -> Block:
    """Numbers for every figure. Arm i has 1 + i kinds of samples, perplexity e^(1 + i / 10), entropy i."""
    right = [place % (n + 1) for place in range(problems)]

    def measured(arm: str, seed: int, item: str) -> GroupMeasurements:
        kind = arms.index(arm)
        vectors = np.eye(n, dtype=np.float32)[[min(i, kind) for i in range(n)]]
        nll = (1 + kind / 10,) * n
        return GroupMeasurements(
            vectors, similarities(a=0.9 - kind / 10, b=0.5), GroupLikelihoods(nll, (kind,) * n, (3,) * n)
        )

    return replace(with_measured(block(dict.fromkeys(arms, right), n), measured), graded=graded)


def test_pass_at_k_as_drawn() -> None:
    whole = full()
    pairs = block(dict.fromkeys(ALL, [1] * 6), n=2)
    figure = drawn(study(), [pairs, whole])["pass-at-k"]
    (axes,) = figure.axes
    ours = lines(axes, COLOURS[0])
    curve = next(line for line in ours if line.get_alpha() is None and len(xy(line)) == 4)
    means = [each.estimate for each in series.subset_curves(whole)[3].y]
    assert xy(curve) == [pytest.approx((k, 100 * mean)) for k, mean in zip(range(1, 5), means, strict=True)]
    markers = [xy(line)[0] for line in ours if len(xy(line)) == 1]
    assert [(round(x), y) for x, y in markers] == [(2, 100), (4, pytest.approx(100 * means[-1]))]
    assert axes.get_xscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2", "4"]
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == [
        "vanilla",
        "esamp",
        "vanilla at other settings",
        "line: pass@k (subset of 4)",
        "marker: pass@k (group of k)",
    ]
    greys = lines(axes, arm_styles(study(), ALL)[ALL[1]].colour)
    assert len(greys) == 2  # no band, no markers


def test_a_scatter_plot_as_drawn() -> None:
    own = drawn(study(), [full()])
    assert set(own) == {
        "pass-at-k",
        "similarity",
        *(f"diversity-over-{x}" for x in ("pass-1", "perplexity", "entropy")),
    }
    (axes,) = own["diversity-over-perplexity"].axes
    grid = next(line for line in axes.get_lines() if len(xy(line)) == 3)
    kinds = [2, 0, 1]  # T 0.5, 1, 1.5: the third, first and second arm
    vendi = [vendi_score(np.eye(4)[[min(i, kind) for i in range(4)]]) for kind in kinds]
    assert xy(grid) == [pytest.approx((np.exp(1 + k / 10), v), rel=1e-5) for k, v in zip(kinds, vendi, strict=True)]
    assert [text.get_text() for text in axes.texts] == ["T 0.5", "T 1", "T 1.5"]
    low, high = axes.get_xlim()
    assert low > high  # better to the right
    assert "perplexity" in axes.get_xlabel()
    (axes,) = own["diversity-over-pass-1"].axes
    ours = lines(axes, COLOURS[0])[-1]
    assert xy(ours)[0][0] == pytest.approx(100 * np.mean([0, 0.25, 0.5, 0.75, 1, 0]))
    assert "%" in axes.get_xlabel()


def test_non_words_and_topic_are_in_percent_and_better_to_the_right() -> None:
    def measured(arm: str, seed: int, item: str) -> GroupMeasurements:
        kind = ALL.index(arm)
        return GroupMeasurements(np.eye(4, dtype=np.float32), nonwords=0.01 * (1 + kind), on_topic=0.9 - 0.1 * kind)

    own = drawn(study(), [with_measured(full(), measured)])
    for across, rising, place in (("non-words", False, 4), ("on-topic", True, 60)):
        (axes,) = own[f"diversity-over-{across}"].axes
        low, high = axes.get_xlim()
        assert bool(low < high) == rising
        assert xy(lines(axes, COLOURS[0])[-1])[0][0] == pytest.approx(place)


def test_diversity_without_embeddings_uses_token_ngrams() -> None:
    of = with_measured(full(), lambda arm, seed, item: GroupMeasurements())
    own = drawn(study(), [of])
    assert set(own) == {"pass-at-k", "diversity-over-pass-1"}
    assert own["diversity-over-pass-1"].axes[0].get_ylabel() == "Vendi Score of token n-grams"


def test_unmeasured_figures_are_not_drawn() -> None:
    assert drawn(study(), [block({arm: [1, 0] for arm in ALL}, n=1)]) == {}
    ungraded = replace(full(), graded=False)
    assert set(drawn(study(), [ungraded])) == {"similarity", "diversity-over-perplexity", "diversity-over-entropy"}
    private = with_measured(full(), lambda arm, seed, item: GroupMeasurements())
    private = replace(
        private,
        arms={
            arm: {
                seed: {
                    p: replace(r, samples=tuple(replace(s, text=None, token_ids=None) for s in r.samples))
                    for p, r in own.items()
                }
                for seed, own in groups.items()
            }
            for arm, groups in private.arms.items()
        },
    )
    assert set(drawn(study(), [private])) == {"pass-at-k"}
    small, large = full(n=2), full(n=4)
    with canvas.style():
        assert "pass-at-k" not in {each.kind for each in block_figures(study(), small, [small, large])}


def test_many_arms_have_a_panel_each() -> None:
    of = study("".join(f'[[methods]]\nmethod = "esamp"\nlabel = "e{i}"\n' for i in range(6)))
    labels = [arm.label for arm in of.arms]
    figure = drawn(of, [full(labels, problems=3)])["similarity"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["esamp", *(f"e{i}" for i in range(6))]
    for place, axes in enumerate(figure.axes):
        curve = next(line for line in lines(axes, COLOURS[0]) if line.get_alpha() is None)
        assert xy(curve) == [pytest.approx((0, 0.9 - (3 + place) / 10)), pytest.approx((POSITIONS[1], 0.5))]
    assert sum(bool(axes.get_xlabel()) for axes in figure.axes) == 3  # below each column


@pytest.mark.parametrize(("seeds", "problems"), [((0,), 1), ((0,), 3)], ids=["one of all", "one seed"])
def test_one_arm_is_enough(seeds: tuple[int, ...], problems: int, tmp_path: Path) -> None:
    alone = config.parse(tomllib.loads(TOML.partition('[[methods]]\nmethod = "vanilla"\ngrid')[0]))
    of = with_measured(
        block({"vanilla": [1] * problems}, seeds=seeds), lambda *_: full(ALL[:1]).arms["vanilla"][0]["p0"].measured
    )
    assert len(figures(alone, [of], tmp_path, ["svg"])) == 5


# ---- files


def test_the_same_numbers_give_the_same_bytes_under_any_user_settings(tmp_path: Path) -> None:
    before = matplotlib.rcParams.copy()
    first = written(tmp_path / "a")
    assert sorted(first) == sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(first) == 2 * len(KINDS)
    with matplotlib.rc_context({"lines.linewidth": 9, "axes.facecolor": "red"}):
        assert written(tmp_path / "b") == first
        assert matplotlib.rcParams["lines.linewidth"] == 9
    assert matplotlib.rcParams.copy() == before


def written(folder: Path) -> dict[str, bytes]:
    found = figures(study(), [full()], folder)
    assert [figure.path.parent for figure in found] == [folder] * len(found)
    return {path.name: path.read_bytes() for figure in found for path in folder.glob(f"{figure.path.stem}.*")}


def test_labels_are_never_markup(tmp_path: Path) -> None:
    """Drawn as they are, without what a font or XML cannot hold, and no file is named by them."""
    of = study("[[methods]]\nmethod = 'xtc'\n")
    of = replace(of, arms=(*of.arms[:-1], replace(of.arms[-1], label=HOSTILE)))
    labels = [*ALL, HOSTILE]
    hostile = replace(full(labels), model=f"../{HOSTILE}", task=HOSTILE)
    found = figures(of, [hostile], tmp_path, ["svg"])
    assert [figure.block for figure in found] == [hostile] * len(KINDS)
    clean = "_$\\frac{1}{$ <script>&amp; \u25a1 \u25a1 | ]("
    assert canvas.shown(HOSTILE) == clean
    for figure in found:
        assert figure.path.parent == tmp_path
        assert set(figure.path.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")
        root = ET.parse(figure.path).getroot()
        assert "script" not in {element.tag.rpartition("}")[2] for element in root.iter()}
        assert clean in (root.findtext("{http://www.w3.org/2000/svg}title") or "")
        assert clean in figure.alt
        assert HOSTILE not in figure.caption
        assert clean not in figure.caption
        assert "\n" not in figure.alt + figure.caption
    (axes,) = drawn(of, [hostile])["diversity-over-entropy"].axes
    assert axes.figure.legends[0].get_texts()[-1].get_text() == clean


def test_long_labels_are_cut() -> None:
    assert canvas.shown("x" * 100) == "x" * 35 + "\u2026"


def test_captions_explain_the_figures() -> None:
    whole = full()
    pairs = replace(block({arm: [1] * 6 for arm in ALL}, n=2), items=("p0", "p1"))
    lacking = with_measured(
        full(), lambda arm, seed, item: GroupMeasurements(None if arm == "esamp" else np.eye(4, dtype=np.float32))
    )
    with canvas.style():
        found = {each.kind: each for each in block_figures(study(), whole, [pairs, whole])}
        (_, cloud) = block_figures(study(), lacking, [lacking])
    told = found["pass-at-k"]
    assert "pass@k (subset of 4)" in told.caption
    assert "pass@k (group of k)" in told.caption
    assert "over 6 problems, each with its 2 seeds" in told.caption
    assert "Groups of 2: 2 of the problems." in told.caption
    assert told.alt.startswith("pass@k: m, t, groups of 4. Where the lines end: vanilla 66.7 % at k 4; esamp 66.7 %")
    assert "6 problems at word 0, 6 at word 32" in found["similarity"].caption
    assert "1 of the methods are not measured" in cloud.caption


def test_without_matplotlib_the_error_names_the_install_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=re.escape(install_command("figures"))):
        figures(study(), [full()], tmp_path)


def test_an_interval_that_excludes_its_estimate_has_no_negative_bar() -> None:
    with canvas.style():
        figure = canvas.titled_figure("x")
        axes = figure.add_subplot()
        plots.bars(axes, 1, 2, "red", up=Interval(2, 2.5, 3), zorder=1)
        (segment,) = axes.collections[0].get_segments()
    assert segment.tolist() == [[1, 2], [1, 3]]
