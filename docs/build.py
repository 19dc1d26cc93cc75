"""Builds the documentation site: runs the notebook, builds the pages strictly, and checks the result.

Usage: `python docs/build.py [--skip-notebook]`. The site is written to `build/site`.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "build" / "site"

# What a browser would fetch while it shows a page. Links that a reader may follow are not meant.
_FETCHED = re.compile(
    r"<(?:script|img|iframe)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^>]*>"
    r"|<link\b(?![^>]*\brel=[\"']?canonical)[^>]*\bhref=[\"']?(?:https?:)?//[^>]*>"
    r"|@import\s+url\([\"']?(?:https?:)?//[^)]*\)",
    re.IGNORECASE,
)


def fetched_from_network(site: Path) -> list[str]:
    """Returns the tags of a built site that make a browser fetch something from another host."""
    found = []
    for page in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        tags = _FETCHED.finditer(page.read_text(encoding="utf-8"))
        found += [f"{page.relative_to(site)}: {tag[0]}" for tag in tags]
    return found


def main() -> int:
    """Builds the site; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--skip-notebook", action="store_true", help="use the outputs of the last execution"
    )
    arguments = parser.parse_args()
    if not arguments.skip_notebook:
        subprocess.run([sys.executable, ROOT / "docs" / "run_notebook.py"], check=True)
    # The theme prints an advertisement for another site generator unless this is set.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    # No --quiet: it drops the warnings before --strict counts them.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--clean"]
    subprocess.run([*command, "-f", ROOT / "docs" / "mkdocs.yml"], check=True, env=environment)
    if found := fetched_from_network(SITE):
        print("docs: the site fetches from the network:", *found, sep="\n  ", file=sys.stderr)
        return 1
    print(f"docs: {SITE / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
