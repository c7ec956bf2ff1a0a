"""The report as one HTML file: figures inline, no script, nothing fetched. Everything it shows stands in the JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from models.training.report import charts

Figure = Mapping[str, float]
CALIBRATION = ("slope", "observed/expected")
NAMES = {"C": "clinical", "E": "expression", "M": "mutations"}

STYLE = """
:root{color-scheme:light;--ink:#1f2933;--soft:#52606d;--line:#d9dee4;--bg:#fff;--band:#eef6fb}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1200px;margin:0 auto;padding:32px 24px 80px}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .4em}h2{font-size:1.3rem;margin:2.4em 0 .4em}
p,li{max-width:74ch}.soft,figcaption,caption{color:var(--soft);font-size:.9rem}
table{border-collapse:collapse;margin:1em 0;font-size:.84rem;font-variant-numeric:tabular-nums}
.wide{overflow-x:auto}
caption{text-align:left;padding-bottom:.4em}
th,td{padding:.32em .9em .32em 0;text-align:left;border-bottom:1px solid var(--line);white-space:nowrap}
th{font-weight:600;color:var(--soft)}
.short td:first-child{color:#a33b00;font-weight:600}
.key{background:var(--band);padding:.9em 1.1em;border-left:3px solid #0072b2;margin:1.2em 0}
figure{margin:1.4em 0}figure.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(400px,1fr));gap:18px 24px}
svg{width:100%;height:auto;display:block}
svg text{font:12.5px system-ui,-apple-system,"Segoe UI",sans-serif;fill:#3b4754}
svg .grid{stroke:#e6eaee;fill:none}svg .axis,svg .tick{stroke:#7b8794;fill:none}
svg .ideal{stroke:#7b8794;stroke-dasharray:4 4;fill:none}svg .reach{fill:#dcefe6}
@media print{main{max-width:none;padding:0}h2{break-after:avoid}figure,table{break-inside:avoid}}
"""


def page(report: Mapping[str, Any]) -> str:
    sections = (
        _head, _goals, _patterns, _heads, _calibration, _decision, _moves, _sites, _subgroups, _external, _missing,
        _limits, _made,
    )  # fmt: skip
    body = "\n".join(section(report) for section in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Validation of breast-cancer-recurrence</title><style>{STYLE}</style></head>\n<body><main>\n"
        f"{body}\n</main></body></html>\n"
    )


def _head(report: Mapping[str, Any]) -> str:
    cohort, method = report["cohort"], report["method"]
    fused = next(row for row in report["patterns"] if row["available"] == "C+E+M")
    slopes = [site["fused"]["slope"]["value"] for site in report["sites"]]
    ratios = [site["fused"]["ratio"]["value"] for site in report["sites"]]
    tcga = report["external"]["endpoints"][0]
    return (
        "<h1>Validation of the fused five-year recurrence risk</h1>"
        '<p class="soft">Model <code>breast-cancer-recurrence</code>. Research prototype, not a medical device.</p>'
        f"<p>{cohort['n']:,} women of METABRIC, {cohort['events']} recurrences within five years, "
        f"{cohort['censored_before_horizon']} lost before. {method['repeats']} times {method['folds']} outer folds "
        f"with {method['inner_folds']} inner ones: no patient is judged by what was fitted on her. Censoring by "
        f"inverse probability weights; intervals (95&nbsp;%) from {method['resamples']:,} resamples of the patients."
        "</p>"
        '<div class="key"><strong>In one paragraph.</strong> With all three modalities the score ranks patients with '
        f"an AUROC of {_f(fused['auroc'])}; that is {_f(report['gains'][0]['auroc'], sign=True)} over the clinical "
        "modality alone, nearly all of it from the expression subtype. Held out within METABRIC it is calibrated. At a "
        f"site it has never seen it is not: observed/expected from {min(ratios):.2f} to {max(ratios):.2f}, slope from "
        f"{min(slopes):.2f} to {max(slopes):.2f}. On TCGA-BRCA a reduced form ranks with C {_f(tcga['fused']['c'])}, "
        "and the genes add nothing that can be told from chance. Recalibrate locally before use."
        "</div>"
    )


def _goals(report: Mapping[str, Any]) -> str:
    rows = [[goal["goal"], goal["found"], "reached" if goal["reached"] else "short"] for goal in report["goals"]]
    return "<h2>Figures to reach</h2>" + _table(
        "Set beforehand. A slope or a coverage falls short where its interval excludes the range 0.95 to 1.05, or 0.87 "
        "to 0.93.",
        ["figure", "found (95 % interval)", ""],
        rows,
    )


def _patterns(report: Mapping[str, Any]) -> str:
    rows = [
        [_spoken(row["available"]), row["n"], row["events"], *(_f(row[name]) for name in ("auroc", "c")),
         _brier(row), _f(row["slope"], 2), _f(row["ratio"], 2)]
        for row in report["patterns"]
    ]  # fmt: skip
    for row in report["references"][:-1]:
        rows.append([f"{row['score']} (not ours)", row["n"], row["events"], _f(row["auroc"]), _f(row["c"]), "", "", ""])
    null = report["references"][-1]
    rows.append(
        [f"prevalence alone, {_percent(null['risk'])}", null["n"], "", "0.5", "0.5", f"{null['brier']:.4f}", "", ""]
    )
    gains = [
        [_spoken(row["better"]), _spoken(row["worse"]), row["n"], _f(row["auroc"], sign=True), _f(row["c"], sign=True)]
        for row in report["gains"]
    ]
    bars = [(_spoken(row["available"]), row["auroc"], _f(row["auroc"])) for row in report["patterns"]]
    return (
        "<h2>What can be said with what is there</h2><p>Each pattern on all who have its modalities. PREDICT's own "
        "endpoint is death of breast cancer, so it is shown for its ranking only.</p>"
        + _figure(
            charts.forest(
                "AUROC by pattern", bars, span=(0.5, 0.8), ticks=(0.5, 0.6, 0.7, 0.8), right=None,
                axis="AUROC at 5 years",
            ),
            "AUROC at five years by what is available.",
        )
        + _table("Discrimination and calibration, held out.", ["available", "n", "events", "AUROC 5 y", "Harrell's C",
                 "Brier", "slope", "observed/expected"], rows)
        + _table("Paired differences on the same patients.", ["better?", "than", "n", "AUROC", "Harrell's C"], gains)
    )  # fmt: skip


def _heads(report: Mapping[str, Any]) -> str:
    order = {"C+E+M": 0, "C": 1, "E+M": 2}
    chosen = sorted(
        (row for row in report["heads"] if row["available"] in order), key=lambda row: order[row["available"]]
    )
    rows = [
        [
            _spoken(row["available"]),
            row["head"],
            _f(row["auroc"]),
            _brier(row),
            _f(row["slope"], 2),
            _f(row["ratio"], 2),
        ]
        for row in chosen
    ]
    return (
        "<h2>Ways to fuse, compared</h2><p>On the same base logits and folds, among those who have everything. The "
        "heads rank alike but for early fusion; they differ in calibration. All patterns are in the JSON.</p>"
        + _table("", ["available", "head", "AUROC 5 y", "Brier", "slope", "observed/expected"], rows)
    )


def _calibration(report: Mapping[str, Any]) -> str:
    plots = [
        f"<div>{charts.calibration(_spoken(row['available']), row['points'])}<figcaption>{_spoken(row['available'])}"
        "</figcaption></div>"
        for row in report["calibration"][:4]
    ]
    bars = [(_spoken(row["available"]), row["slope"], _f(row["slope"], 2)) for row in report["patterns"]]
    return (
        "<h2>Calibration</h2><p>Ten groups of like risk: what was stated against what was observed (Kaplan-Meier, with "
        f'its 95&nbsp;% interval). On the dashed line both agree.</p><figure class="grid">{"".join(plots)}</figure>'
        + _figure(
            charts.forest(
                "Calibration slope by pattern", bars, span=(0.5, 1.5), ticks=(0.5, 0.75, 1, 1.25, 1.5), right=1.0,
                axis="calibration slope (green: 0.95 to 1.05)", reach=(0.95, 1.05),
            ),
            "Slope 1: neither too bold nor too timid. Below 1: too bold.",
        )
    )  # fmt: skip


def _decision(report: Mapping[str, Any]) -> str:
    names = {"C+E+M": "all three", "C": "clinical alone", "E+M": "expression + mutations"}
    return (
        "<h2>Decision curves</h2><p>Net benefit per patient if everybody above a threshold were treated "
        + (
            "(Vickers and Elkin 2006). The dashed line at 0 is treating nobody. The gain of all three over the "
            "clinical modality is small at every threshold.</p>"
        )
        + _figure(charts.decision(report["decision"], names), "Net benefit by threshold, held out.")
    )


def _moves(report: Mapping[str, Any]) -> str:
    rows = [
        [_spoken(row["available"]), f"{row['half_width']:.2f}", _f(row["coverage"])]
        for row in sorted(report["moves"], key=lambda row: row["half_width"])
    ]
    return (
        "<h2>How far missing results could move the answer</h2><p>Conformal half width in logits, fitted inside the "
        "training part for nine moves of ten, and how often the complete answer of held-out patients stayed within it. "
        "This is no uncertainty of the outcome.</p>"
        + _table("", ["available", "half width (logits)", "coverage, held out (goal 0.9)"], rows)
    )


def _sites(report: Mapping[str, Any]) -> str:
    rows, bars, after = [], [], []
    for site in report["sites"]:
        fused = site["fused"]
        rows.append(
            [site["site"], fused["n"], fused["events"], _f(site["clinical"]["auroc"]), _f(fused["auroc"]),
             _f(site["gain"]["auroc"], sign=True), _f(fused["slope"], 2), _f(fused["ratio"], 2)]
        )  # fmt: skip
        bars.append((f"site {site['site']} ({fused['n']} patients)", fused["ratio"], _f(fused["ratio"], 2)))
        mended = site["recalibrated"]
        after.append(
            [site["site"], fused["events"], mended["fitted"], _f(fused["ratio"], 2), _f(mended["after"]["ratio"], 2),
             _f(fused["slope"], 2), _f(mended["after"]["slope"], 2)]
        )  # fmt: skip
    off = max(abs(site["fused"]["ratio"]["value"] - 1.0) for site in report["sites"])
    return (
        "<h2>At a site that it has never seen</h2><p>Fitted on four of METABRIC's sites, judged on the fifth. It still "
        f"ranks; its risks are off by as much as {100 * off:.0f}&nbsp;%, and not in one direction. This is why local "
        "recalibration comes first.</p>"
        + _figure(
            charts.forest("Observed/expected by left-out site", bars, span=(0.4, 1.6), ticks=(0.5, 0.75, 1, 1.25, 1.5),
                          right=1.0, axis="observed / expected"),
            "Observed against expected recurrences.",
        )
        + _table("", ["site", "n", "events", "AUROC clinical", "AUROC all", "difference", *CALIBRATION], rows)
        + "<p>What <code>cds models recalibrate</code> makes of it with that site's own outcomes; <em>after</em> is "
        "held out. Below 100 events only the intercept is fitted, so the slope stays what it was.</p>"
        + _table("", ["site", "events", "fitted", "observed/expected before", "after", "slope before", "after"], after)
    )  # fmt: skip


def _subgroups(report: Mapping[str, Any]) -> str:
    rows, bars = [], []
    for row in report["subgroups"]:
        label = f"{row['by']}: {row['group']}"
        figures = ["too few", "", "", ""]
        if "auroc" in row:
            figures = [_f(row["auroc"]), _brier(row), _f(row["slope"], 2), _f(row["ratio"], 2)]
            bars.append((label, row["ratio"], f"{_f(row['ratio'], 2)}, n {row['n']}"))
        rows.append([label, row["n"], row["events"], *figures])
    return (
        "<h2>Subgroups</h2><p>All three modalities, held out; the weights are the group's own. Many groups, so one or "
        "two intervals that leave 1 are no surprise.</p>"
        + _figure(
            charts.forest("Observed/expected by subgroup", bars, span=(0.5, 1.5), ticks=(0.5, 0.75, 1, 1.25, 1.5),
                          right=1.0, axis="observed / expected"),
            "Observed against expected recurrences.",
        )
        + _table("", ["group", "n", "events", "AUROC 5 y", "Brier", "slope", "observed/expected"], rows)
    )  # fmt: skip


def _external(report: Mapping[str, Any]) -> str:
    external = report["external"]
    rows = [
        [row["endpoint"], row["fused"]["n"], row["fused"]["events"], _f(row["clinical"]["c"]), _f(row["genomic"]["c"]),
         _f(row["fused"]["c"]), _f(row["gain"]["c"], sign=True), _f(row["fused"]["slope"], 2),
         _f(row["fused"]["ratio"], 2)]
        for row in external["endpoints"]
    ]  # fmt: skip
    return (
        "<h2>Another cohort: TCGA-BRCA</h2><p>A reduced form (age, stage, lobular histology; the flags of "
        f"{len(external['genes'])} shared genes), fitted on {external['trained_on']:,} METABRIC patients. Median "
        f"follow-up without the event is {external['median_follow_up_months']:.0f} months there, "
        f"{report['cohort']['median_follow_up_months']:.0f} here; endpoints and treatment differ, so its calibration "
        "says little about ours. C is Harrell's.</p>"
        + _table("PFI progression-free interval, OS overall survival, DSS disease-specific survival.",
                 ["endpoint", "n", "events to 5 y", "C clinical", "C genes", "C both", "difference", *CALIBRATION],
                 rows)
    )  # fmt: skip


def _missing(report: Mapping[str, Any]) -> str:
    row = report["naturally_missing"]
    found = report["agreement"]
    return (
        "<h2>Really missing, and really the same</h2><p>Elsewhere a modality is hidden from patients who have it. In "
        f"{row['n']} patients ({row['events']} events) the clinical one is really incomplete; with expression and "
        f"mutations alone: AUROC {_f(row['auroc'])}, slope {_f(row['slope'], 2)}, observed/expected "
        f"{_f(row['ratio'], 2)}.</p><p>The shipped ONNX graphs against the training program, all patterns, "
        f"{found['compared']:,} probabilities: largest difference {found['largest_difference']:.0e}.</p>"
    )


def _limits(report: Mapping[str, Any]) -> str:
    mutations = next(row for row in report["gains"] if (row["better"], row["worse"]) == ("C+E+M", "C+E"))
    worst = min((row for row in report["subgroups"] if "auroc" in row), key=lambda row: row["auroc"]["value"])
    early = next(row for row in report["heads"] if row["head"] == "early fusion")
    genes = report["external"]["endpoints"][0]["gain"]["c"]
    return (
        "<h2>What did not work, and what this can't say</h2><ul>"
        f"<li>Mutations beside clinical and expression: AUROC {_f(mutations['auroc'], sign=True)}. They are worth "
        "having where the clinical modality is not there.</li>"
        f"<li>Early fusion of the same columns ranks worse (AUROC {_f(early['auroc'])}) and is too bold (slope "
        f"{_f(early['slope'], 2)}).</li>"
        "<li>No site's risks can be taken to another site as they are.</li>"
        f"<li>The weakest subgroup is {worst['by']}: {worst['group']} (AUROC {_f(worst['auroc'])}, slope "
        f"{_f(worst['slope'], 2)}).</li>"
        f"<li>On TCGA-BRCA the genes change C for progression-free interval by {_f(genes, sign=True)}.</li>"
        "<li>Censoring weights are estimated once, not again in each resample; deaths without recurrence count as "
        "censored, so a risk here is that in a world without other deaths.</li>"
        "<li>Averaging over the repeats makes a score a little steadier than a single fit is; the mean slope of single "
        "repeats stands in the JSON.</li>"
        "<li>Women diagnosed 1977 to 2005, treated as then, mostly of European ancestry.</li></ul>"
    )


def _made(report: Mapping[str, Any]) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(report["method"]["libraries"].items()))
    rows = [[name, digest] for name, digest in sorted(report["inputs"].items())]
    return (
        f"<h2>How it was made</h2><p><code>make models-report</code>, seed {report['method']['seed']}, {libraries}. "
        "METABRIC: Curtis 2012, Pereira 2016, by cBioPortal, Open Database License 1.0. TCGA-BRCA: TCGA Research "
        "Network, outcomes of Liu 2018, Cell. The same tables: <code>validation.json</code>.</p>"
        + _table("Inputs by SHA-256.", ["file", "SHA-256"], [[name, digest[:32] + "…"] for name, digest in rows])
    )


# ---- words -----------------------------------------------------------------------------------------------------------


def _spoken(available: str) -> str:
    """`C+E` as people say it; with what follows a comma."""
    letters, comma, rest = available.partition(",")
    return " + ".join(NAMES[letter] for letter in letters.split("+")) + comma + rest


def _f(figure: Figure | None, digits: int = 3, *, sign: bool = False) -> str:
    if figure is None:
        return "cannot be said"
    plus = "+" if sign else ""
    value, low, high = (f"{figure[name]:{plus}z.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _brier(row: Mapping[str, Any]) -> str:
    """The value alone: its interval stands in the JSON."""
    return f"{row['brier']['value']:.4f}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _table(caption: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        f"<tr{' class=short' if row and row[-1] == 'short' else ''}>"
        + "".join(f"<td>{escape(str(cell))}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
