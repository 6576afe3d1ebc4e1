"""How the report's page looks, light or dark as the reader likes it, and its one script: choosing what is shown."""

__all__ = ["SCRIPT", "STYLE"]

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fdfdfb; --card: #ffffff; --ink: #1f2328; --dim: #5f6773; --rule: #e6e6e2; --code: #f4f4f1;
  --pass: #1a7f4b; --fail: #c8281e; --crashed: #7a1fa2; --hung: #b45309; --inconclusive: #6b7280; --na: #b9bec6;
  --none: transparent;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15181d; --card: #1b1f26; --ink: #e5e7eb; --dim: #98a1ad; --rule: #2a2f37; --code: #20252c;
    --pass: #2f9e66; --fail: #e5534b; --crashed: #b06bd6; --hung: #d98a2b; --inconclusive: #7d8590; --na: #4b525c;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); }
body { font: 14px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 24px 64px; }
h1 { font-size: 25px; line-height: 1.25; margin: 0 0 10px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 44px 0 8px; }
h3 { font-size: 13px; margin: 18px 0 4px; color: var(--dim); font-weight: 600; }
p { margin: 2px 0; }
.dim { color: var(--dim); }
a { color: inherit; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 0; }
dt { color: var(--dim); }
dd { margin: 0; overflow-wrap: anywhere; }
.counts { display: flex; flex-wrap: wrap; gap: 8px; margin: 18px 0 0; padding: 0; list-style: none; }
.counts li { border: 1px solid var(--rule); border-radius: 8px; background: var(--card); padding: 6px 14px; }
.counts b { font-size: 20px; margin-right: 6px; }
.badge { display: inline-block; min-width: 5.2em; text-align: center; padding: 0 8px; border-radius: 4px; color: #fff; }
.badge { font-size: 12px; font-weight: 600; line-height: 20px; text-decoration: none; white-space: nowrap; }
.pass { background: var(--pass); }
.fail { background: var(--fail); }
.crashed { background: var(--crashed); }
.hung { background: var(--hung); }
.inconclusive { background: var(--inconclusive); }
.na { background: var(--na); color: var(--ink); }
.none { background: var(--none); border: 1px solid var(--na); color: var(--dim); }
.matrix { display: grid; grid-template-columns: max-content 1fr; gap: 6px 14px; align-items: start; }
.matrix .cells { display: flex; flex-wrap: wrap; gap: 3px; }
.cell { display: block; width: 17px; height: 17px; border-radius: 3px; font-size: 10px; line-height: 17px; }
.cell { text-align: center; color: #fff; text-decoration: none; font-weight: 700; }
.cell.none { line-height: 15px; color: var(--dim); }
.cell.soft { border-radius: 9px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 14px 0 0; padding: 0; list-style: none; }
.legend { font-size: 13px; }
.legend .cell { display: inline-block; vertical-align: -4px; margin-right: 6px; }
.case { border: 1px solid var(--rule); border-radius: 8px; background: var(--card); }
.case { padding: 12px 16px; margin: 10px 0; }
.case:target, tr:target { outline: 2px solid var(--hung); }
.case h4 { margin: 0 0 2px; font-size: 15px; }
.case h4 code { font-weight: 600; }
.case ol { margin: 4px 0; padding-left: 1.6em; }
pre { background: var(--code); border-radius: 6px; padding: 8px 12px; margin: 4px 0 8px; overflow-x: auto; }
pre, code { font: 12.5px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
table { border-collapse: collapse; width: 100%; }
.wide { overflow-x: auto; }
th { text-align: left; color: var(--dim); font-weight: 600; font-size: 13px; }
th, td { padding: 5px 10px 5px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
td.id { white-space: nowrap; }
td.level { white-space: nowrap; font-size: 12px; color: var(--dim); padding-top: 7px; }
td .variants { display: flex; flex-wrap: wrap; gap: 2px 12px; font-size: 12px; margin-top: 3px; }
.choose { display: flex; flex-wrap: wrap; gap: 6px 16px; align-items: center; margin: 8px 0 12px; }
.choose input[type=search] { font: inherit; padding: 3px 10px; border: 1px solid var(--na); border-radius: 6px; }
.choose input[type=search] { background: var(--card); color: inherit; min-width: 240px; }
@media (max-width: 640px) {
  main { padding: 20px 14px 48px; }
  .matrix { grid-template-columns: 1fr; gap: 2px; }
  td.id { white-space: normal; overflow-wrap: anywhere; }
}
"""

SCRIPT = """
const search = document.querySelector("input[type=search]");
const boxes = [...document.querySelectorAll(".choose input[type=checkbox]")];
const rows = [...document.querySelectorAll("#statements tbody tr")];
function choose() {
  const shown = new Set(boxes.filter(box => box.checked).map(box => box.value));
  const words = search.value.toLowerCase().split(" ");
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !shown.has(row.dataset.verdict) || !words.every(word => text.includes(word));
  }
}
for (const input of [search, ...boxes]) input.addEventListener("input", choose);
"""
