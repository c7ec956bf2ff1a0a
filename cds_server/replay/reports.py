"""What a replay found: for a terminal, as a page, and as JUnit XML for a build server.

The reports hold what the answers held: with real requests, data of patients.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as Xml
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cds_server.replay.play import Played, Verdict

PAGE, JUNIT = "index.html", "junit.xml"
_TEMPLATES = Path(__file__).with_name("templates")
_UNSPEAKABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 (2.2, Characters) cannot say at all."""


def write(folder: Path, server: str, at: str, played: Sequence[Played]) -> tuple[Path, Path]:
    """The page and the JUnit file in `folder`; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    page, junit = folder / PAGE, folder / JUNIT
    page.write_text(as_page(server, at, played), encoding="utf-8", errors="replace")
    junit.write_bytes(as_junit(server, at, played))
    return page, junit


def told(played: Sequence[Played]) -> str:
    """A line for each request, its difference below it, the sum at the end."""
    lines: list[str] = []
    for each in played:
        lines.append(f"{each.verdict:9}  {each.status or '-':>3}  {each.seconds * 1000:5.0f} ms  {each.name}")
        lines += [f"           {line}" for line in each.diff if each.verdict is Verdict.DIFFERENT]
    return _plain("\n".join([*lines, "", summed(played)]))


def summed(played: Sequence[Played]) -> str:
    """For example `14 requests: 13 same, 1 different`."""
    counts = {verdict: sum(each.verdict is verdict for each in played) for verdict in Verdict}
    found = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    return f"{len(played)} requests: {found}" if played else "nothing was played: no request stands there"


def as_page(server: str, at: str, played: Sequence[Played]) -> str:
    jinja = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return jinja.get_template("report.html").render(server=server, at=at, played=played, summed=summed(played))


def as_junit(server: str, at: str, played: Sequence[Played]) -> bytes:
    """JUnit XML as build servers read it: different and new answers are failures, unserved hooks are skipped."""
    suite = Xml.Element(
        "testsuite",
        name="cds replay",
        hostname=_plain(server),
        timestamp=at,
        tests=str(len(played)),
        failures=str(sum(not each.verdict.good for each in played)),
        errors="0",
        skipped=str(sum(each.verdict is Verdict.UNSERVED for each in played)),
        time=f"{sum(each.seconds for each in played):.3f}",
    )
    for each in played:
        case = Xml.SubElement(
            suite, "testcase", classname="cds.replay", name=_plain(each.name), time=f"{each.seconds:.3f}"
        )
        if each.verdict is Verdict.UNSERVED:
            Xml.SubElement(case, "skipped", message="the server has no service for this hook")
        elif not each.verdict.good:
            failure = Xml.SubElement(case, "failure", message=_why(each), type=each.verdict.value)
            failure.text = _plain("\n".join(each.diff))
    suites = Xml.Element("testsuites")
    suites.append(suite)
    return bytes(Xml.tostring(suites, encoding="utf-8", xml_declaration=True))


def _why(played: Played) -> str:
    if played.verdict is Verdict.NEW:
        return "no answer is recorded: play it with --record, and look at what was kept"
    return "the answer is not the recorded one"


def _plain(text: str) -> str:
    return _UNSPEAKABLE.sub("\ufffd", text)
