"""The time line as a file: one HTML page that needs nothing else, light or dark as the reader likes it."""

from html import escape

from vdev.race.story import describe_combination, ending_of, title_of
from vdev.race.timeline import draw_timeline
from vdev.race.verdict import Finding, Verdict

__all__ = ["page_of_finding", "page_of_verdict"]

_STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fdfdfb; --card: #ffffff; --ink: #1f2328; --dim: #6b7280; --rule: #ececea; --lane: #d9dbe0;
  --bad: #c8281e; --bad-band: #fdeae7; --good: #1a7f4b; --warn-band: #fff6df;
  --a0: #2563a8; --a1: #0f8a8a; --a2: #8a4fc0; --a3: #5b6470;
  --m: #3d7edb; --d: #e09b1a; --empty: #f1f1ef; --hint: #c9378a;
  --v0: #cfe8d5; --v1: #b7d4f4; --v2: #f3d2a5; --v3: #d9c8f2; --v4: #f2c6cf; --v5: #c6e6e8; --version: #22303c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15181d; --card: #1b1f26; --ink: #e5e7eb; --dim: #98a1ad; --rule: #23272e; --lane: #363c46;
    --bad: #ff7b70; --bad-band: #3a1c1c; --good: #56d08f; --warn-band: #33291a;
    --a0: #3a7cc4; --a1: #1d8f8f; --a2: #9760c8; --a3: #727c8a;
    --m: #4f8fe8; --d: #d99a25; --empty: #20252c; --hint: #e064ad;
    --v0: #235238; --v1: #244a75; --v2: #6a4a1c; --v3: #4b3672; --v4: #6b2f3c; --v5: #1f5558; --version: #eef2f6;
  }
}
body { margin: 0; background: var(--paper); color: var(--ink); }
body, svg { font-family: system-ui, "Segoe UI", "DejaVu Sans", sans-serif; font-size: 14px; line-height: 1.5; }
main { max-width: 1152px; margin: 0 auto; padding: 28px 24px 48px; }
h1, h2 { font-size: 24px; line-height: 1.25; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin-top: 44px; }
.lost { color: var(--bad); }
.safe { color: var(--good); }
p { margin: 2px 0; }
p.dim { color: var(--dim); }
figure { margin: 12px 0 0; overflow-x: auto; }
p.ending { margin: 14px 0 0; padding: 12px 16px; max-width: 100ch; border-left: 4px solid var(--bad); }
p.ending { background: var(--bad-band); border-radius: 0 8px 8px 0; }
ul { display: flex; flex-wrap: wrap; gap: 6px 22px; list-style: none; padding: 0; margin: 18px 0 0; }
ul { color: var(--dim); font-size: 13px; }
ul i { display: inline-block; width: 13px; height: 13px; border-radius: 3px; margin-right: 7px; vertical-align: -2px; }
svg { display: block; font-size: 13px; }
svg text { fill: var(--ink); }
.band.fatal { fill: var(--bad-band); }
.band.lost-write { fill: var(--warn-band); }
.rule { stroke: var(--rule); stroke-width: 1; }
.lane { stroke: var(--lane); stroke-width: 2; }
.head { font-size: 13px; font-weight: 600; }
svg .subhead { font-size: 11px; fill: var(--dim); }
svg .actor-name { fill: #fff; font-weight: 600; font-size: 12.5px; }
.act { fill: var(--card); stroke-width: 1.6; }
.act.a0 { stroke: var(--a0); }
.act.a1 { stroke: var(--a1); }
.act.a2 { stroke: var(--a2); }
.act.a3 { stroke: var(--a3); }
.actor.a0 { fill: var(--a0); }
.actor.a1 { fill: var(--a1); }
.actor.a2 { fill: var(--a2); }
.actor.a3 { fill: var(--a3); }
.act-name { font-size: 12px; }
line.merge { stroke: var(--ink); stroke-opacity: 0.45; stroke-dasharray: 4 2.5; }
.act.merge { stroke-dasharray: 4 2.5; }
.act.fatal { stroke: var(--bad); stroke-width: 2.6; }
svg .letter { fill: var(--dim); }
svg .letter.fatal { fill: var(--bad); font-weight: 700; }
svg .words.fatal { fill: var(--bad); font-weight: 600; }
.strip.empty { fill: var(--empty); }
.strip.m { fill: var(--m); }
.strip.d { fill: var(--d); }
.v0 { fill: var(--v0); }
.v1 { fill: var(--v1); }
.v2 { fill: var(--v2); }
.v3 { fill: var(--v3); }
.v4 { fill: var(--v4); }
.v5 { fill: var(--v5); }
svg .version { fill: var(--version); font-size: 12px; font-weight: 600; }
.hint { fill: var(--hint); }
.hint.collected { fill-opacity: 0.3; }
.hint.queued { fill-opacity: 0.6; }
svg .hint-name { fill: var(--hint); font-size: 11px; font-weight: 700; }
.arrow { fill: none; stroke: var(--hint); stroke-width: 1.8; stroke-opacity: 0.85; }
.arrow-head { fill: var(--hint); }
.verdict { font-weight: 700; }
svg .verdict.lost { fill: var(--bad); }
svg .verdict.kept { fill: var(--good); }
"""

_LEGEND = (
    ("var(--m)", "M: still to send"),
    ("var(--d)", "D: written since it was last read"),
    ("var(--v0)", "version at source and destination"),
    ("var(--hint)", "hint: with the driver, in the queue, popped"),
    (
        "repeating-linear-gradient(90deg, var(--dim) 0 4px, transparent 4px 6px) center / 100% 2px no-repeat",
        "D is merged into M",
    ),
    ("var(--warn-band)", "the write that gets lost"),
    ("var(--bad-band)", "the step that loses it"),
)


def page_of_finding(finding: Finding) -> str:
    """Return the page that shows one finding."""
    return _page(title_of(finding), _figure(finding, is_first=True))


def page_of_verdict(verdict: Verdict) -> str:
    """Return the page that shows the loss; without one, what was explored and how invariants were broken."""
    if verdict.loss is not None:
        return page_of_finding(verdict.loss)
    title = f"{verdict.combination.strategy}: no page is lost"
    limit = "" if verdict.complete or verdict.mode != "exhaustive" else ", and the search ended at its limit"
    parts = [
        f'<h1 class="safe">{escape(title)}</h1>',
        f"<p>{escape(describe_combination(verdict.combination))}</p>",
        f'<p class="dim">Bound: {escape(str(verdict.bound))}. {verdict.state_count:,} states seen{limit}.</p>',
    ]
    parts += [_figure(finding, is_first=False) for finding in verdict.broken_invariants.values()]
    return _page(title, "\n".join(parts))


def _figure(finding: Finding, *, is_first: bool) -> str:
    heading = "h1" if is_first else "h2"
    kind = "lost" if finding.lost else ""
    legend = "".join(f'<li><i style="background: {colour}"></i>{escape(what)}</li>' for colour, what in _LEGEND)
    return (
        f'<{heading} class="{kind}">{escape(title_of(finding))}</{heading}>\n'
        f"<p>{escape(describe_combination(finding.combination))}</p>\n"
        f'<p class="dim">Bound: {escape(str(finding.bound))}</p>\n'
        f"<figure>\n{draw_timeline(finding)}\n</figure>\n"
        f'<p class="ending">{escape(ending_of(finding))}</p>\n'
        f"<ul>{legend}</ul>"
    )


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
