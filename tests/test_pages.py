"""The pages for people: every link inside the repository leads somewhere, headings included."""

from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [page for folder in (".", "docs", "benchmarks", "adapters") for page in sorted((ROOT / folder).glob("*.md"))]
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """What a link to a heading may name, by GitHub's rule: lower case, no punctuation, dashes for spaces."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere() -> None:
    found, broken = 0, []
    for page in PAGES:
        for link in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
            if "://" in link:
                continue
            found += 1
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert len(PAGES) >= 15 and found >= 40
    assert not broken


def test_every_guide_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    guides = sorted(ROOT.glob("docs/*.md"))
    assert len(guides) >= 10
    assert not [guide.name for guide in guides if f"](docs/{guide.name})" not in readme]


def test_the_page_of_commands_is_what_the_commands_take() -> None:
    spec = spec_from_file_location("commands", ROOT / "docs" / "commands.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.page()
    assert page == (ROOT / "docs" / "commands.md").read_text(encoding="utf-8"), "python docs/commands.py writes it"
    assert page.count("\n## lora-clf ") >= 20 and page.count("\n* `--") >= 300
