"""List the families of Reasoning Gym whose own verifiers give a score of 1 to answers without content.

    python scripts/gym_rewards.py [FAMILY ...]

The answers below are graded on four problems of each family, in a process with limits. Run this
again for a new version of the library. A family that it lists belongs into
`esamp.tasks.gym_verifier.LENIENT`, unless the answer is right by chance (0 for 0.0).
"""

import sys

from reasoning_gym.factory import DATASETS, create_dataset

from esamp.tasks.verifier_process import VerifierProcess

PROBLEMS = 4
ANSWERS = (
    *("nan", "-nan", "nanj", "1+nanj", "nan+nani", "inf", "Infinity", "1e999", "0/0", "1/0", "oo", "zoo"),
    *("0", "1", "-1", "00", "0.0", "0 0 0 0", "1 1 1 1", "9" * 9_000),
    *("", " ", "None", "null", "x", "yes", "True", "{}", "[]", "[[]]", "()", "'", "-", "?", ",", "."),
)


def main() -> None:
    """Print a line for each family that rewards one of the answers, or the question itself, or cannot be built."""
    for family in sys.argv[1:] or sorted(DATASETS):
        settings = {"seed": 0, "size": PROBLEMS}
        try:
            problems = create_dataset(family, **settings)
            entries = [problems[place] for place in range(PROBLEMS)]
        except (AssertionError, TypeError, ValueError) as error:
            print(f"{family}: not built ({error})", flush=True)
            continue
        rewarded: dict[str, int] = {}
        module, package = "esamp.tasks.gym_verifier", "reasoning-gym"
        with VerifierProcess(module, (family, settings), package=package, seconds=5.0) as process:
            for entry in entries:
                for answer in (*ANSWERS, entry["question"]):
                    score = process.call((answer, entry))
                    if (
                        isinstance(score, float)
                        and score >= 1.0
                        and answer.casefold() != str(entry["answer"]).casefold()
                    ):
                        shown = "the question" if answer == entry["question"] else repr(answer[:12])
                        rewarded[shown] = rewarded.get(shown, 0) + 1
        if rewarded:
            print(
                f"{family}: {', '.join(f'{name} {count}/{PROBLEMS}' for name, count in rewarded.items())}", flush=True
            )


if __name__ == "__main__":
    main()
