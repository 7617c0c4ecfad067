"""Made-up GPQA questions of words that occur nowhere else, so that any of `SECRETS` in an output shows a leak."""

import csv
from pathlib import Path

ROWS = [
    {
        "Record ID": f"recMARKER{place}",
        "Question": f"Made up: which zebrafish{place} is quokkalike?\nIt has a second line, with a comma.",
        "Correct Answer": f"wombatine{place}",
        "Incorrect Answer 1": f"narwhaloid{place}",
        "Incorrect Answer 2": f"axolotline{place}\nin two lines",
        "Incorrect Answer 3": f"pangolinic{place}",
        "Explanation": f"because of tapirism{place}",
    }
    for place in range(8)
]
SECRETS = (
    "zebrafish",
    "quokka",
    "wombat",
    "narwhal",
    "axolotl",
    "pangolin",
    "tapir",
    "MARKER",
    "Made up",
    "second line",
)


def write_csv(folder: Path) -> str:
    """Write the questions as GPQA's CSV file, and return its path."""
    with (folder / "own.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(ROWS[0]))
        table.writeheader()
        table.writerows(ROWS)
    return str(folder / "own.csv")
