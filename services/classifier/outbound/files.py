"""Files of a process that people write, as text."""

from pathlib import Path

from services.runtime.process import ProcessInvalidError


def text_of(file: Path) -> str:
    """Read UTF-8, with or without a mark at its beginning. Raises ProcessInvalidError that says the mend."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ProcessInvalidError(f"{file} is not there: write it") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ProcessInvalidError(f"{file}, line {line}: this is no UTF-8: save the file as UTF-8") from None
