"""Embeddings that come with a wheel: 256 dimensions, offline, the same everywhere."""

import logging
import re
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from services.classifier.domain.examples import Matrix, Vector

TEXT_CHARACTERS_MAX = 4000
"""What a customer wants stands at the beginning; more is not read."""
KEPT_TEXTS_MAX = 512
_ADDRESS = re.compile(r"\S+@\S+|https?://\S+|www\.\S+", re.IGNORECASE)
_WITH_DIGITS = re.compile(r"\S*\d\S*")


class WordLlamaEmbedder:
    """Mean of static token vectors, of unit length; a text without words is a vector of zeros.

    Numbers and addresses are made alike before: an order number would otherwise outweigh the words around it. The model
    is loaded with the first text, in half a second; a service embeds its examples before it serves.
    """

    dimensions = 256

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: OrderedDict[str, Vector] = OrderedDict()

    @property
    def name(self) -> str:
        """What a vector's meaning depends on; part of index versions."""
        return f"wordllama-{version('wordllama')}-l2_supercat-{self.dimensions}"

    def embed(self, texts: Sequence[str]) -> Matrix:
        """A row for each text, about 0.1 ms each; a text that was asked lately is not computed again."""
        return np.stack([self._one(text) for text in texts]) if texts else np.zeros((0, self.dimensions), np.float32)

    def _one(self, text: str) -> Vector:
        plain = plain_text(text)
        with self._lock:
            if (known := self._kept.get(plain)) is not None:
                self._kept.move_to_end(plain)
                return known
        tokens = self._model.tokenizer.encode(plain, add_special_tokens=False).ids
        total: Vector = self._model.embedding[tokens].sum(axis=0, dtype=np.float32)
        length = float(np.linalg.norm(total))
        vector = total / np.float32(length) if length > 0 else total
        vector.flags.writeable = False
        with self._lock:
            self._kept[plain] = vector
            if len(self._kept) > KEPT_TEXTS_MAX:
                self._kept.popitem(last=False)
        return vector

    @cached_property
    def _model(self) -> Any:
        root = logging.getLogger()
        handlers, level = root.handlers[:], root.level
        import wordllama  # noqa: PLC0415  # half a second, and it configures the root logger: undone below

        root.handlers[:], root.level = handlers, level
        folder = Path(wordllama.__file__).parent
        model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
        model.tokenizer.no_padding()
        return model


def plain_text(text: str) -> str:
    """Lower case, one space between words, `number` for whatever holds a digit, nothing for addresses."""
    words = _WITH_DIGITS.sub(
        "number", _ADDRESS.sub(" ", text[:TEXT_CHARACTERS_MAX].encode("utf-8", "replace").decode().lower())
    )
    return " ".join(words.split())
