"""Write the mails in tests/data/mails anew: `python tests/renew_goldens.py`, then read the diff."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.support.alarm_mails import MAILS, all_names, golden_file, mail, written


def main() -> None:
    """Write every file; remove those of mails that are no more."""
    files = {golden_file(name, locale): mail(name, locale) for name, locale in all_names()}
    for old in set(MAILS.glob("*/*.txt")) - files.keys():
        old.unlink()
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(written(content), "utf-8", newline="\n")
    print(f"{len(files)} mails in {MAILS}")


if __name__ == "__main__":
    main()
