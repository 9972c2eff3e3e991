"""The digest of code: what it does counts, near and far, and what is said about it does not."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from services.classifier.outbound.sources import digest_of, digest_with_imports

NEAR = '''"""Answers."""

from lab import words
from lab.far import far


def near(text: str) -> str:
    """What is near."""
    return words.plain(text) + far(text)  # in this order
'''
FILES = {
    "__init__.py": "",
    "near.py": NEAR,
    "words.py": "from lab.below import deep\n\n\ndef plain(text):\n    return deep.LEVEL * text\n",
    "far.py": "from json import dumps\nfrom lab.aside import deep\n\n\ndef far(text):\n    return dumps(text)\n",
    "below/__init__.py": "",
    "below/deep.py": "LEVEL = 1\n",
    "aside/deep.py": "LEVEL = 1\n",
    "apart.py": "LEVEL = 1\n",
}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (folder := tmp_path / "lab").mkdir()
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "lab"]:
        monkeypatch.delitem(sys.modules, name)
    importlib.import_module("lab.apart")
    return folder


def near() -> ModuleType:
    return importlib.import_module("lab.near")


@pytest.mark.parametrize("name", sorted({*FILES} - {"__init__.py", "apart.py"}))
def test_what_a_module_uses_counts_however_far_it_is(lab: Path, name: str) -> None:
    before = digest_with_imports(near(), "lab")

    (lab / name).write_text(FILES[name].replace("1", "2") + "\n\nMORE = 1\n")

    assert digest_with_imports(near(), "lab") != before


@pytest.mark.parametrize("name", ["words.py", "apart.py"])
def test_one_module_alone_does_not_count_others_and_nothing_counts_what_it_does_not_use(lab: Path, name: str) -> None:
    before = digest_of(near()), digest_with_imports(near(), "lab")

    (lab / name).write_text(FILES[name] + "\n\nMORE = 1\n")

    after = digest_of(near()), digest_with_imports(near(), "lab")
    assert after[0] == before[0]
    assert (after[1] == before[1]) is (name == "apart.py")


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        ('"""Answers."""', '"""Answers, and more."""'),
        ('    """What is near."""\n', ""),
        ("  # in this order", ""),
        ("words.plain(text) + far(text)", "(\n        words.plain(text) +\n        far(text)\n    )"),
    ],
    ids=["a docstring", "none", "a comment", "layout"],
)
def test_what_is_said_for_people_does_not_count(lab: Path, said: str, instead: str) -> None:
    before = digest_of(near()), digest_with_imports(near(), "lab")
    assert said in NEAR

    (lab / "near.py").write_text(NEAR.replace(said, instead))

    assert (digest_of(near()), digest_with_imports(near(), "lab")) == before


@pytest.mark.parametrize("other", ["far(text) + words.plain(text)", "words.plain(text) + far('')"])
def test_what_it_does_counts(lab: Path, other: str) -> None:
    before = digest_of(near())

    (lab / "near.py").write_text(NEAR.replace("words.plain(text) + far(text)", other))

    assert digest_of(near()) != before


def test_the_digest_is_the_same_on_each_python_and_machine(lab: Path) -> None:
    """The record in git names it."""
    assert lab.is_dir()

    assert digest_of(near()) == "1911c1637b74fd03de074d3059015c81fb73d4100983545951114d6a82436a6d"
