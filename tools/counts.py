"""Print the last line of `./test`: the sums of pytest's closing lines in a file, and the seconds.

A warning follows it when tests in a browser were skipped.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

CLOSING = re.compile(r"^=*\s*((?:\d+ [a-z]+(?:, )?)+) in [0-9.]+s", re.MULTILINE)

output = Path(sys.argv[1]).read_text(encoding="utf-8")
counts: Counter[str] = Counter()
for closing in CLOSING.finditer(output):
    for number, word in re.findall(r"(\d+) ([a-z]+)", closing[1]):
        counts[word] += 0 if word.startswith("warning") else int(number)
summary = ", ".join(f"{number} {word}" for word, number in sorted(counts.items()) if number)
sys.stdout.write(f"{summary or 'no tests'} in {sys.argv[2]} s\n")
if "no Chromium on this machine" in output:
    sys.stdout.write(
        "WARNING: the tests in a browser were skipped: this machine has no Chromium "
        "(Debian: apt-get install chromium).\n"
    )
