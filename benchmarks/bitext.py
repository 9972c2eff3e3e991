"""The slices of the Bitext customer support data set that this repository holds, and the rule that cuts them.

    python -m benchmarks.bitext PATH/TO/Bitext_Sample_Customer_Support_Training_Dataset.csv

rewrites the lines of source `bitext` in processes/support/examples.jsonl and evals.jsonl, and held_out.jsonl here.
Rows whose digest begins with a byte of 192 or more are left to the demo's world and are in none of these.
"""

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from services.classifier.outbound.embeddings import plain_text

WORLD_FIRST_BYTE = 192
EXAMPLES_PER_LABEL = 24
EVALS_PER_LABEL = 1
HELD_OUT_PER_LABEL = 40
SUPPORT = Path(__file__).parents[1] / "processes" / "support"
HELD_OUT = Path(__file__).parent / "held_out.jsonl"


class Row(NamedTuple):
    """A message and its intent."""

    text: str
    label: str


class Slices(NamedTuple):
    """No text of one is in another, numbers aside."""

    examples: list[Row]
    evals: list[Row]
    held_out: list[Row]


def is_worlds(text: str) -> bool:
    """Whether the demo's world may use a message: then nothing here does."""
    return sha256(text.encode()).digest()[0] >= WORLD_FIRST_BYTE


def cut(rows: Iterable[Row]) -> Slices:
    """In the order of the digests: the first of a label are examples, then evals, then held out; each text once."""
    slices = Slices([], [], [])
    taken: dict[str, int] = defaultdict(int)
    seen: set[str] = set()
    mine = (row for row in rows if not is_worlds(row.text))
    for row in sorted(mine, key=lambda row: sha256(row.text.encode()).digest()):
        same = plain_text(row.text)
        if same in seen:
            continue
        seen.add(same)
        place = taken[row.label]
        taken[row.label] += 1
        if place < EXAMPLES_PER_LABEL:
            slices.examples.append(row)
        elif place < EXAMPLES_PER_LABEL + EVALS_PER_LABEL:
            slices.evals.append(row)
        elif place < EXAMPLES_PER_LABEL + EVALS_PER_LABEL + HELD_OUT_PER_LABEL:
            slices.held_out.append(row)
    return slices


def _rewrite(file: Path, rows: list[Row], labelled: Callable[[str], Mapping[str, object]]) -> None:
    lines = file.read_text().splitlines() if file.exists() else []
    kept = [line for line in lines if json.loads(line)["source"] != "bitext"]
    fresh = [{"text": row.text, **labelled(row.label), "source": "bitext"} for row in sorted(rows, key=_by_label)]
    file.write_text("\n".join([*(json.dumps(line, ensure_ascii=False) for line in fresh), *kept]) + "\n")


def _by_label(row: Row) -> tuple[str, bytes]:
    return row.label, sha256(row.text.encode()).digest()


def _as_example(label: str) -> Mapping[str, object]:
    return {"label": label, "language": "en"}


def _as_eval(label: str) -> Mapping[str, object]:
    return {"expected": {"intent": label, "language": "en"}}


def main() -> None:
    """Rewrite the slices from the whole data set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path)
    with parser.parse_args().csv.open(newline="", encoding="utf-8") as file:
        slices = cut(Row(row["instruction"].strip(), row["intent"]) for row in csv.DictReader(file))
    _rewrite(SUPPORT / "examples.jsonl", slices.examples, _as_example)
    _rewrite(SUPPORT / "evals.jsonl", slices.evals, _as_eval)
    _rewrite(HELD_OUT, slices.held_out, _as_example)
    print(", ".join(f"{len(rows)} {name}" for name, rows in slices._asdict().items()))


if __name__ == "__main__":
    main()
