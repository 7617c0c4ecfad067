"""Final answers in the style of chat models: all tasks read the same notations, and no task reads thoughts."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esamp.search.answers import key
from esamp.tasks.base import Grade, Item
from esamp.tasks.boxed import boxes
from esamp.tasks.contest import Contest, ContestOptions
from esamp.tasks.countdown import Problem, grade_answer
from esamp.tasks.coverage import Coverage, CoverageOptions
from esamp.tasks.final_answer import final_answer, stated, undressed
from esamp.tasks.gpqa import GPQA
from esamp.tasks.math_answer import GSM8K, Math500, answer_of
from esamp.tasks.math_text import normal
from esamp.tasks.math_verifier import MathVerifier
from esamp.tasks.numerals import number, number_in_words
from esamp.tasks.thought import without_thought
from esamp.tasks.tot_text import ToTText
from support.linear_time import assert_linear

pytest.importorskip("math_verify", reason="math-verify is not installed: pip install -e '.[tasks]'")
TWENTY_FOUR = "6 / (5 / 4 - 1)"  # of 1 4 5 6


@pytest.fixture(scope="module")
def verifier() -> Iterator[MathVerifier]:
    with MathVerifier() as found:
        yield found


def contest(answer: int, text: str) -> Grade:
    return Contest([]).grade(Item("aime24/00", "", {"answer": answer}), text)


def letter(gold: str, text: str) -> bool:
    return GPQA([]).grade(Item("gpqa/x", "", {"answer": gold}), text).correct


def game(text: str) -> bool:
    return grade_answer(Problem((1, 4, 5, 6), 24), text).correct


# ---- thoughts


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>a</think>b", "b"),
        ("<think>a</think>b<think>c</think>d", "bd"),
        ("a</think>b", "b"),
        ("<think>a", ""),
        ("b<think>a", "b"),
        ("<think>a</think>b<think>c", "b"),
        ("<think>a <think> b</think>c", "c"),
        ("<think>a <think> b</think>c</think>d", "d"),
        ("<THINKING>a</Thinking>b", "b"),
        ("<reasoning>a</reasoning>b", "b"),
        ("<thought>a</thought>b", "b"),
        ("[THINK]a[/THINK]b", "b"),
        ("◁think▷a◁/think▷b", "b"),
        ("<|begin_of_thought|>a<|end_of_thought|>b", "b"),
        ("<|channel|>analysis<|message|>a<|channel|>final<|message|>b", "b"),
        ("no thought", "no thought"),
        ("I think> so", "I think> so"),
        ("", ""),
    ],
    ids=ascii,
)
def test_thoughts_are_removed(text: str, left: str) -> None:
    assert without_thought(text) == left


@pytest.fixture(scope="module")
def graders(verifier: MathVerifier) -> dict[str, tuple[Callable[[str], Grade], str]]:
    """A grader and a right answer of every task that grades without running code."""
    five, sentences = {"answer": "5"}, ["One ends.", "Two ends.", "Three ends.", "Four ends."]
    states = next(item for item in Coverage.build(CoverageOptions()).items() if "Texas" in json.dumps(dict(item.data)))
    coverage = Coverage.build(CoverageOptions())
    return {
        "aime": (lambda text: contest(5, text), r"\boxed{5}"),
        "math500": (lambda text: Math500([], verifier).grade(Item("x", "", five), text), r"\boxed{5}"),
        "gsm8k": (lambda text: GSM8K([], verifier).grade(Item("x", "", five), text), "#### 5"),
        "gpqa": (lambda text: GPQA([]).grade(Item("x", "", {"answer": "C"}), text), "Answer: C"),
        "countdown": (lambda text: grade_answer(Problem((1, 4, 5, 6), 24), text), f"Answer: {TWENTY_FOUR}"),
        "tot_text": (
            lambda text: ToTText([]).grade(Item("x", "", {"sentences": sentences}), text),
            "Passage:\n" + "\n\n".join(sentences),
        ),
        "coverage": (lambda text: coverage.grade(states, text), "Texas"),
    }


@pytest.mark.parametrize("task", ["aime", "math500", "gsm8k", "gpqa", "countdown", "tot_text", "coverage"])
def test_answers_in_thoughts_do_not_count(graders: dict[str, tuple[Callable[[str], Grade], str]], task: str) -> None:
    grade, right = graders[task]
    assert grade(right).correct
    assert grade(f"<think>hm</think>\n{right}").correct
    assert grade(f"hm, hm</think>\n{right}").correct
    assert not grade(f"<think>{right}").correct
    assert not grade(f"<think>{right}\n</think>\n").correct
    assert not grade(f"<think>\n{right}\n</think>\nI do not know.").correct
    assert not grade(f"{right}</think>\nI do not know.").correct


def test_votes_ignore_answers_in_thoughts() -> None:
    assert key("<think>Answer: 3</think>Answer: 4", "auto") == "4"
    assert key("<think>Answer: 3", "auto") is None
    assert key(r"<think>\boxed{3}</think>", "boxed") is None


# ---- boxes


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        (r"$\boxed 9$", ["9"]),
        (r"it is \boxed -12.", ["-12"]),
        (r"$\boxed \frac{1}{3}$", [r"\frac{1}{3}"]),
        (r"\(\boxed x\)", ["x"]),
        (r"\boxed{9}, and \boxed is the mark", ["9"]),
        (r"\boxed{9}, as \boxed a sentence", ["9"]),
        (r"\boxed{9} \boxed{ } \boxed{...} \boxed{\ldots} \fbox{}", ["9"]),
        (r"\boxed{9}. No: \boxed{", []),
        (r"\boxed{9}. No: \boxed{\frac{1}{", []),
        (r"\boxed{ 1 and \boxed{9}", ["9"]),
        (r"\\boxed{\\frac{1}{2}}", [r"\frac{1}{2}"]),
        ("\x08oxed{9}", ["9"]),
        (r"\\\boxed{9}", ["9"]),
        (r"\boxed{3} or \boxed{5}", ["3", "5"]),
        (r"\boxed{3 \boxed{5} 7}", [r"3 \boxed{5} 7"]),
    ],
    ids=ascii,
)
def test_boxes_are_found_in_every_notation(text: str, inside: list[str]) -> None:
    assert [box.inside for box in boxes(text)] == inside


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("**Answer:** 9", "9"),
        ("Answer:\n9", "9"),
        ("Answer:\n\n```\n9\n```", "9"),
        ("Answer:\n$$\n9\n$$", "9"),
        ("### Answer\n9", "9"),
        ("**Final answer**\n\n9", "9"),
        ("**Final Answer:**\n9", "9"),
        ("The answer is: 9", "9"),
        ("Answer：９", "９"),
        ("answers: 9", None),
        ("no mark", None),
    ],
    ids=ascii,
)
def test_answers_after_a_mark_are_found(text: str, answer: str | None) -> None:
    assert stated(text) == answer


def test_a_box_has_priority_over_a_colon_and_a_colon_over_a_verb() -> None:
    assert final_answer("Answer: 3 or \\boxed{4}") == "4"
    assert final_answer("Answer: 3\nSo the answer is odd.") == "3"
    assert final_answer("So the answer is 3.") == "3."
    assert final_answer("It is 3.") is None


@pytest.mark.parametrize(
    "marked_up",
    [
        *("9", "**9**", "$9$", "`9`", r"\(9\)", r"\[9\]", "$$9$$", r"\boxed{9}", "9.", "“9”", "'9'", "<9>", "[[9]]"),
        *(
            r"\textbf{9}",
            r"$\mathbf{9}$.",
            r"**$\boxed{9}$**.",
            r"\displaystyle 9",
            r"\text{\textbf{9}}",
            r"\,9\,",
            "_9_",
        ),
        *("<answer>9</answer>", "*9*.", "{9}", "```9```", r"9\quad"),
    ],
)
def test_markup_around_an_answer_is_removed(marked_up: str) -> None:
    assert undressed(marked_up) == "9"
    assert key(f"Answer: {marked_up}", "auto") == "9"
    assert contest(9, f"so \\boxed{{{marked_up}}}").correct


@pytest.mark.parametrize("bare", ["a$b$c", "$a$ and $b$", "{a}{b}", r"\text{a} \text{b}", "f(x)", "`a` or `b`"])
def test_markup_inside_an_answer_stays(bare: str) -> None:
    assert undressed(bare) == bare


# ---- numbers


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"35\ \text{hours}", "35"),
        (r"35\text{ m}^2", "35"),
        (r"35\,\mathrm{km}^3", "35"),
        (r"35 \text{ square feet}", "35"),
        (r"35^{\circ}", "35"),
        (r"p+q+r=20+10+5=35", "35"),
        (r"35 = n", "35"),
        (r"\displaystyle 35", "35"),
        (r"\text{The answer is }35", "35"),
        (r"\text{Total: }35", "35"),
        (r"35_{10}", "35"),
        (r"35_{\text{ten}}", "35"),
        (r"35_{6}", None),
        ("-35", "-35"),
        ("−35", "-35"),
        ("３５", "35"),
        (r"12\,345", "12345"),
        (r"12\;345", "12345"),
        (r"12\ 345", "12345"),
        ("12\u202f345", "12345"),
        ("12 345", "12345"),
        ("12,345", "12345"),
        (r"1{,}234{,}567", "1234567"),
        (r"\$12,\!345", "12345"),
        ("$3.50", "3.5"),
        ("35 dollars", "35"),
        ("35 thousand", "35000"),
        ("2.5 million people", "2500000"),
        ("(35)", "35"),
        ("(3, 500)", None),
        ("at least 35", None),
        (r"35 \text{ or } 36", None),
        (r"x \ge 35", None),
        ("35i", None),
        (r"35\mathrm{i}", None),
        (r"35\pi", None),
        (r"35\sqrt{2}", None),
        ("35!", None),
        ("3 5", None),
        ("", None),
    ],
    ids=ascii,
)
def test_numbers_are_read_in_every_notation(text: str, value: str | None) -> None:
    assert number(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$40 per week.", "40"),
        ("40, which is the sum", "40"),
        ("They have 40 apples", "40"),
        ("The total is $1,250.", "1250"),
        ("They sold 40 thousand tickets.", "40000"),
        ("40 boxes of 12 eggs", "40"),
        ("5 * 8 = 40", "40"),
        ("40/day", "40"),
        ("40 thousand dollars a year", "40000"),
        ("40 or 41", None),
        ("40 to 50", None),
        ("not 40", None),
        ("more than 40", None),
        ("12 boxes and 40 eggs", None),
        ("3 hours 20 minutes", None),
        ("forty", None),
    ],
    ids=ascii,
)
def test_the_number_of_a_sentence_is_read(text: str, value: str | None) -> None:
    assert number_in_words(text) == value


def test_a_contest_accepts_negative_answers(tmp_path: Path) -> None:
    file = tmp_path / "amc.jsonl"
    file.write_text(json.dumps({"problem": "What is 4 - 9?", "answer": -5.0}))
    task = Contest.build(ContestOptions.parse({"contest": "amc23", "data": str(file)}))
    (item,) = task.items()
    assert item.data["answer"] == -5
    assert task.grade(item, r"\boxed{-5}").correct
    assert task.grade(item, r"\boxed{−5}").correct
    assert not task.grade(item, r"\boxed{5}").correct


# ---- letters


@pytest.mark.parametrize(
    "text",
    [
        *(
            "Answer: D and a neutron.",
            "Answer: D, since it is a base",
            "Answer: D is right",
            "The correct answer is (D).",
        ),
        *(r"\boxed{D: hexane}", r"\boxed{\text{D) hexane}}", r"\boxed{D.}", r"\boxed{\textbf{(D)}}", r"$\boxed D$"),
        *(
            r"\boxed{\text{Option D}}",
            r"Answer: \(D\)",
            r"Answer: $\mathrm{D}$",
            "Answer: “D”",
            "Answer: 'D'.",
            "Answer: <D>",
        ),
        *(
            "Answer: [D]",
            "Answer: [[D]]",
            "Answer: {D}",
            "Answer: Ｄ",
            "Answer: The correct option is D",
            "### Answer\n\nD",
        ),
        *("Answer:\n**D**", "Answer: D - hexane", "Answer: D (hexane)", "Answer: d) hexane", "Answer: d"),
        *(r"Answer: \(D\), as shown", 'Answer: "D", as shown', "Answer: “D”, as shown", "Answer: ‘D’ (hexane)"),
    ],
)
def test_letters_of_options_are_read_in_every_notation(text: str) -> None:
    assert letter("D", text)


@pytest.mark.parametrize(
    "text",
    [
        *("Answer: a salt or a base? I cannot tell.", "Answer: A salt is formed.", "The answer is a salt."),
        *(r"\boxed{\text{A salt}}", r"\boxed{A \text{ or } B}", "Answer: A or B", "Answer: A and C", "Answer: A/D"),
        "Answer: a by-product of the reaction",
        *("Answer: A(OH)2", "Answer: A–B", "Answer: A = B", "Answer: A1", "answer: a or b"),
    ],
)
def test_articles_formulas_and_several_letters_are_not_options(text: str) -> None:
    assert not letter("A", text)


# ---- expressions


@pytest.mark.parametrize(
    "text",
    [
        *(f"Answer: {each}" for each in (f"**{TWENTY_FOUR}**", f"${TWENTY_FOUR} = 24$", rf"\({TWENTY_FOUR}\)")),
        *(f"Answer: {each}" for each in (rf"\boxed{{{TWENTY_FOUR}}}", f"`{TWENTY_FOUR}`.", f"24 = {TWENTY_FOUR}")),
        *(
            f"Answer:{each}"
            for each in (f"\n{TWENTY_FOUR}", f"\n```\n{TWENTY_FOUR}\n```", f"** **{TWENTY_FOUR} = 24**")
        ),
        "Answer: 6 / [5 / 4 - 1]",
        "Answer: 6 ÷ (5 ∕ 4 − 1)",
        r"Answer: $\frac{6}{\frac{5}{4} - 1}$",
        r"Answer: \dfrac{6}{5 \div 4 - 1} = 24",
        r"Answer: 6 \div \left(5 \div 4 - 1\right)",
        f"so it is \\boxed{{{TWENTY_FOUR}}}",
        f"Answer: {TWENTY_FOUR}\nSo the answer is 24.",
    ],
)
def test_expressions_are_read_in_every_notation(text: str) -> None:
    assert game(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "Answer: 6 * 4 = 24",
            f"Answer: {TWENTY_FOUR} = 25",
            "Answer: 24",
            "Answer: (6 + 5) * 4 - 1 = 24",
            "Answer: 6x",
        ),
        *(f"{TWENTY_FOUR}", "Answer: 6 ** 4 - 5 * 1", f"Answer: {TWENTY_FOUR} or 24"),
    ],
)
def test_wrong_expressions_are_incorrect(text: str) -> None:
    assert not game(text)


def test_multiplication_may_be_written_as_x_or_without_a_sign() -> None:
    assert grade_answer(Problem((2, 3, 4), 24), "Answer: 2 x 3 x 4").correct
    assert grade_answer(Problem((2, 3, 4), 14), "Answer: 2(3 + 4)").correct


# ---- formulas


@pytest.mark.parametrize(
    ("gold", "text", "right"),
    [
        (r"\frac{1}{900!}", r"\boxed{\frac{1}{901!}}", False),
        ("0.00031", r"\boxed{0.0003104}", False),
        (r"3 \cdot 10^{-9}", r"\boxed{2 \cdot 10^{-9}}", False),
        (r"\frac{x}{900!}", r"\boxed{\frac{x}{901!}}", False),
        (r"\{0.0001, 0.0002\}", r"\boxed{\{0.0001, 0.0002003\}}", False),
        (r"\frac{\pi}{10^9}", r"\boxed{\frac{\pi}{10^9+1}}", False),
        (r"\frac16", r"\boxed{0.166667}", True),
        (r"3 \cdot 10^{-9}", r"\boxed{0.000000003}", True),
        ("0", r"\boxed{0.0000001}", False),
        ("1203_4", r"\boxed{1203_5}", False),
        ("1203_4", r"\boxed{1203_{4}}", True),
        ("1203_4", r"\boxed{1203_{\text{four}}}", True),
        ("1203_4", r"\boxed{1203 \text{ base } 4}", True),
        ("1203_4", r"\boxed{1203_{\text{five}}}", False),
        ("1203_4", r"\boxed{1203 \text{ base five}}", False),
        ("1203_4", r"\boxed{1203}", True),
        ("1203", r"\boxed{1203_4}", False),
        (r"7\text{ m}^2", r"\boxed{7\text{ m}^3}", False),
        (r"7\text{ m}^2", r"\boxed{7\text{ square meters}}", True),
        (r"7\text{ m}^2", r"\boxed{7\text{ cubic meters}}", False),
        (r"7\text{ m}^2", r"\boxed{7}", True),
        (r"7\text{ cm}", r"\boxed{7\text{ m}}", False),
        (r"7\text{ minutes}", r"\boxed{7\ \text{min}}", True),
        (r"2, 4, \dots, 2n", r"\boxed{2,4,\ldots,2n}", True),
        (r"2, 4, \dots, 2n", r"\boxed{2,4,\dots,n}", False),
        (r"2, 4, \dots, 2n", r"\boxed{2, \dots, 2n}", False),
        (r"3\mathrm{i}", r"\boxed{3}", False),
        (r"3i", r"\boxed{3\mathrm{i}}", True),
        (r"1+\mathrm{e}", r"\boxed{1+e}", True),
        (r"\text{June 12}", r"\boxed{\text{June }12}", True),
        (r"\frac{1}{\sqrt{m}}", r"\boxed{\sqrt{\frac{1}{m}}}", True),
        ("|x|", r"\boxed{x}", False),
        (r"\frac34", r"\boxed{¾}", True),
        (r"\sqrt{5}", r"\boxed{√5}", True),
        ("x^2", r"\boxed{x²}", True),
        ("3x - 4", r"\boxed{３x − ４}", True),
        ("0.00012", r"\boxed{1.2e-4}", True),
        ("2345", r"\boxed{2\,345}", True),
        (r"\frac{12345}{7}", r"\boxed{\frac{12{,}345}{7}}", True),
        ("-8", r"\boxed{—8}", True),
        ("2, 9", r"It is \boxed{2} or \boxed{9}.", True),
        (r"4 \pm \sqrt{3}", r"\boxed{4+\sqrt{3}} and \boxed{4-\sqrt{3}}", True),
        ("2, 9", r"\boxed{2}, \boxed{9}, \boxed{11}", False),
        ("9, 11", r"\boxed{2}, \boxed{9}, \boxed{11}", False),
        ("2, 9", r"\boxed{3}. Wait, that is wrong: \boxed{2} and \boxed{9}", True),
        ("2, 9", r"\boxed{3}" + " and so on" * 15 + r" \boxed{2} and \boxed{9}", True),
        ("9", r"It was \boxed{2}, but it is \boxed{9}.", True),
        ("9", r"First \boxed{2}, then \boxed{9}.", True),
        ("9", "**Answer:** $9$", True),
        ("9", "The answer is 9.", True),
        ("9", r"At first \boxed{9}. No, \boxed{", False),
        ("9", r"The answer is 9, or \boxed{", False),
        ("12102", r"\boxed{(12, 102)}", False),
    ],
    ids=ascii,
)
def test_formulas_are_compared_with_the_reference(verifier: MathVerifier, gold: str, text: str, right: bool) -> None:
    assert Math500([], verifier).grade(Item("x", "", {"answer": gold}), text).correct is right


@pytest.mark.parametrize(
    ("gold", "text", "right"),
    [
        ("40", "#### $40 per week.", True),
        ("40", "#### 40, in total", True),
        ("40", "#### **40**", True),
        ("40", "####\n40", True),
        ("40", r"\boxed{40 dollars}", True),
        ("40", r"\boxed{\text{40 minutes}}", True),
        ("40000", "#### 40 thousand", True),
        ("1250", r"\boxed{1\ 250}", True),
        ("40", "So she has 40 apples.\nThe answer is 40 apples.", True),
        ("40", "#### 40 or 41", False),
        ("41", "#### 40 or 41", False),
        ("41", "#### $40 and $41", False),
        ("40", "#### 140", False),
        ("40", "It could be 40", False),
    ],
    ids=ascii,
)
def test_gsm8k_reads_numbers_and_sentences(verifier: MathVerifier, gold: str, text: str, right: bool) -> None:
    assert GSM8K([], verifier).grade(Item("x", "", {"answer": gold}), text).correct is right


# ---- hostile texts


@given(st.text(alphabet="\\boxed{}$*_.answer: is#1,2 x^()<>[]\n", max_size=120))
def test_any_text_yields_an_answer_or_none(text: str) -> None:
    answer = final_answer(without_thought(text))
    assert answer is None or isinstance(undressed(answer), str)
    assert number(text) is None or float(str(number(text))) is not None
    normal(text)


@pytest.mark.parametrize(
    "piece",
    [
        *(
            "\\boxed{",
            "\\boxed{ ",
            "}",
            "\\boxed 1",
            "<think>",
            "</think>",
            "answer: ",
            "answer is ",
            "**answer",
            "#### ",
        ),
        *(
            "\\text{",
            "$",
            "1,234",
            "1\\,",
            " ",
            "9",
            "=",
            "\\frac{1}{",
            "(",
            "a_{",
            "A ",
            "\n",
            "\\boxed{{}} ",
            "\\left",
        ),
    ],
)
@pytest.mark.parametrize("around", ["{}", "\\boxed{{{}}}", "Answer: {}", "#### {}"])
def test_run_time_is_linear_on_hostile_texts(piece: str, around: str) -> None:
    def read(text: str) -> None:
        plain = without_thought(text)
        answer_of(plain, several=True)
        undressed(final_answer(plain) or "")
        contest(1, text)
        letter("A", text)
        game(text)
        number_in_words(text)

    assert_linear(read, lambda size: around.format(piece * (size // len(piece))), 25_000)
