"""What a process's folder says is carried out, or refused with the mend."""

import re
import shutil
from pathlib import Path

import pytest

from services.runtime.process import SHIPPED, ProcessInvalidError, load


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped support process."""
    return shutil.copytree(SHIPPED / "support", tmp_path / "support")


def test_a_copy_with_another_prompt_is_loaded(folder: Path) -> None:
    (folder / "steps" / "answer" / "prompt.md").write_text("Be kind.")

    assert load("support", folder.parent).folder == folder


@pytest.mark.parametrize("file", ["rules.py", "steps/answer/nearest.py", "helper.py"])
def test_code_that_would_not_run_is_refused_with_the_file_and_the_mend(folder: Path, file: str) -> None:
    with (folder / file).open("a") as code:
        code.write("\nLIMIT = 1\n")

    with pytest.raises(ProcessInvalidError, match=f"^{re.escape(str(folder / file))} would not run, .*its own name$"):
        load("support", folder.parent)


def test_a_search_by_nothing_is_refused_with_the_mend() -> None:
    nothing = {"retrieval": {"words": 0, "meaning": 0, "labels": 0}}

    with pytest.raises(ProcessInvalidError, match="let words, meaning or labels count more than 0"):
        load("support", overrides=nothing)
