"""`MathVerifier`: mathematical equality of two answers, computed in a process that can be killed."""

from esamp.tasks.verifier_process import SECONDS, VerifierProcess, encodable

LONGEST = 2_000
"""Characters of an answer that is compared; a longer one is never equal."""


class MathVerifier(VerifierProcess):
    """`math-verify` in another process.

    It parses answers with a computer algebra system, which can take very long and much memory. An answer that uses up
    the processor time is wrong.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        super().__init__("esamp.tasks.math_process", None, package="math-verify", seconds=seconds)

    def same(self, gold: str, answer: str) -> bool:
        """Whether `answer` is mathematically equal to `gold`; both are LaTeX or plain text.

        Raises:
            MissingDependencyError: math-verify is not installed.
            UnsupportedError: the process was stopped or killed from outside.
        """
        if len(answer) > LONGEST or "\0" in answer:
            return False
        return self.call([encodable(gold), encodable(answer)]) is True
