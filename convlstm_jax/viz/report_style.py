"""The look of the report: one style sheet, light or dark as the reader's screen."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f5f6f9; --card: #ffffff; --text: #1f2430; --faint: #667085;
  --line: #e3e6ec; --accent: #2f6fed; --good: #0b8a5f; --bad: #c2453f; --warm: #e0862c;
  --note: #eef3fe;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #13151a; --card: #1c1f26; --text: #e8eaf0; --faint: #98a1b3;
    --line: #2d323d; --accent: #7aa5ff; --good: #4cc79a; --bad: #f08a84;
    --warm: #f0a55a; --note: #1d2740;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font-size: 16px; line-height: 1.55;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 40px 0 14px; }
p { margin: 0; }
.written { color: var(--faint); font-size: 14px; }
.data {
  margin-top: 22px; padding: 12px 16px; background: var(--note);
  border-left: 4px solid var(--accent); border-radius: 6px; white-space: pre-line;
}
.tiles {
  display: grid; gap: 14px; margin-top: 22px;
  grid-template-columns: repeat(auto-fit, minmax(220px, 1fr));
}
.tile, .card {
  background: var(--card); border: 1px solid var(--line); border-radius: 12px;
}
.tile { padding: 14px 18px; }
.tile .name { color: var(--faint); font-size: 13px; }
.tile .value { font-size: 28px; font-weight: 650; font-variant-numeric: tabular-nums; }
.tile .versus { font-size: 13px; color: var(--faint); }
.better { color: var(--good); }
.worse { color: var(--bad); }
.card { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td {
  padding: 8px 14px; text-align: right; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; white-space: nowrap;
}
tr:last-child td, tr:last-child th[scope=row] { border-bottom: 0; }
thead th { color: var(--faint); font-weight: 500; vertical-align: bottom; }
thead small { display: block; font-weight: 400; }
th:first-child, td:first-child { text-align: left; }
th[scope=row] { font-weight: 500; }
tr.model th, tr.model td { font-weight: 650; color: var(--accent); }
table.plain td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
table.plain td, table.plain th[scope=row] {
  font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 13px;
}
.hint { color: var(--faint); font-size: 13px; margin-top: 8px; }
figure { margin: 0 0 18px; padding: 14px 18px 16px; }
figcaption { font-weight: 600; font-size: 14px; margin-bottom: 10px; }
/* Pictures are drawn on white; the white frame keeps them whole on a dark page. */
figure img {
  display: block; max-width: 100%; margin: 0 auto; background: #ffffff;
  border-radius: 8px;
}
.player { padding: 16px 18px; }
.player .controls {
  display: flex; flex-wrap: wrap; gap: 10px 14px; align-items: center;
}
.player .controls, .player select, .player button { font-size: 14px; }
.player select, .player button {
  padding: 6px 10px; color: var(--text); background: var(--page); font-family: inherit;
  border: 1px solid var(--line); border-radius: 8px;
}
.player label { color: var(--faint); }
.player button { min-width: 92px; cursor: pointer; }
.player input { flex: 1 1 180px; accent-color: var(--accent); }
.player output {
  min-width: 44px; text-align: right; font-weight: 600;
  font-variant-numeric: tabular-nums;
}
.panels {
  display: grid; gap: 16px; margin-top: 14px;
  grid-template-columns: repeat(auto-fit, minmax(170px, 1fr));
}
.panel { margin: 0; padding: 10px 0 0; border-top: 3px solid var(--faint); }
.panel.truth { border-color: var(--good); }
.panel.prediction { border-color: var(--accent); }
.panel.error { border-color: var(--warm); }
.panel canvas {
  display: block; width: 100%; background: #000000; border-radius: 6px;
  image-rendering: pixelated;
}
.panel p {
  margin-top: 6px; color: var(--faint); font-size: 13px;
  font-variant-numeric: tabular-nums;
}
.panel.away canvas { filter: brightness(0.35); }
noscript p { color: var(--faint); }
details { margin-top: 14px; }
summary { cursor: pointer; color: var(--accent); font-size: 14px; margin-bottom: 10px; }
details h3 { font-size: 14px; margin: 16px 0 8px; }
@media print { body { background: #ffffff; } figure { break-inside: avoid; } }
"""
