"""Card numbers are masked before any text is stored: of what looks like one, only the last four digits remain."""

import re
from itertools import accumulate

DIGITS_MIN = 13
DIGITS_MAX = 19
_SEPARATORS = " \u00a0.\\-\u2013\u2011"
_RUN = re.compile(rf"\d+(?:[{_SEPARATORS}]{{1,2}}\d+)*")
_GROUP = re.compile(r"\d+")
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def mask(text: str) -> str:
    """Replace every Luhn-valid number of 13 to 19 digits, in groups or not, by `[card ending 1234]`."""
    return _RUN.sub(_masked, text)


def _masked(match: re.Match[str]) -> str:
    """A card may stand between other numbers (`4111 1111 1111 1111 12/27`), but it begins and ends with a group."""
    run = match[0]
    if len(run) < DIGITS_MIN:
        return run
    digits = _Run(run)
    kept: list[str] = []
    done = first = 0
    while first < len(digits.groups):
        last = digits.span_end(first)
        if last is None:
            first += 1
            continue
        start, end = digits.groups[first][0], digits.groups[last][1]
        kept += [run[done:start], f"[card ending {digits.ending(last)}]"]
        done, first = end, last + 1
    return "".join([*kept, run[done:]])


class _Run:
    """Groups of digits with single separators between them; every stretch's check sum in constant time."""

    def __init__(self, run: str) -> None:
        self.groups = [group.span() for group in _GROUP.finditer(run)]
        self.bounds = list(accumulate((end - start for start, end in self.groups), initial=0))
        """Where each group begins among the digits."""
        self.text = "".join(_GROUP.findall(run))
        values = [int(digit) for digit in self.text]
        self._sums = [
            list(accumulate((v if place % 2 == plain else _DOUBLED[v] for place, v in enumerate(values)), initial=0))
            for plain in (0, 1)
        ]

    def ending(self, last: int) -> str:
        """The four digits that end with group `last`."""
        end = self.bounds[last + 1]
        return self.text[end - 4 : end]

    def span_end(self, first: int) -> int | None:
        """The last group of the longest card that begins with group `first`, and of every card that overlaps it."""
        end = self._card_end(first)
        inside = first + 1
        while end is not None and inside <= end:
            end = max(end, self._card_end(inside) or 0)
            inside += 1
        return end

    def _card_end(self, first: int) -> int | None:
        found, begin = None, self.bounds[first]
        for last in range(first, len(self.groups)):
            end = self.bounds[last + 1]
            if end - begin > DIGITS_MAX:
                break
            sums = self._sums[(end - 1) % 2]
            if end - begin >= DIGITS_MIN and (sums[end] - sums[begin]) % 10 == 0:
                found = last
        return found
