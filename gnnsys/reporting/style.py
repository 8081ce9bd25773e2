"""The style sheet of a report: light and dark, wide and narrow, screen and paper."""

STYLE = """
:root{--bg:#fbfbfa;--card:#fff;--ink:#1f2328;--soft:#656d76;--line:#e4e6e8;
--c0:#2f6fde;--c1:#d9622b;--c2:#2d9d6f;--c3:#8a5cd1;--c4:#b8860b;--c5:#c2417c}
@media (prefers-color-scheme:dark){:root{--bg:#14171a;--card:#1c2024;--ink:#e3e6e9;--soft:#98a1aa;--line:#30363c;
--c0:#6ea3ff;--c1:#f08a5a;--c2:#57c795;--c3:#b291ee;--c4:#d9b04a;--c5:#ec7fae}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1180px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:26px;margin:0 0 2px;overflow-wrap:anywhere}h2{font-size:16px;margin:34px 0 12px}
.sub{color:var(--soft);margin:0 0 22px;overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px}
.tile,figure,.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px 16px;margin:0}
.tile b{display:block;font-size:24px;font-weight:600;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:13px}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,345px),1fr));gap:14px}
figcaption{font-weight:600;margin-bottom:6px}svg{width:100%;height:auto;display:block}
svg{overflow:visible}svg text{fill:var(--soft);font-size:18px}.grid{stroke:var(--line)}
polyline{fill:none;stroke-width:2;stroke-linejoin:round}polyline.limit{stroke-dasharray:7 6}
polyline.c0{stroke:var(--c0)}polyline.c1{stroke:var(--c1)}polyline.c2{stroke:var(--c2)}
polyline.c3{stroke:var(--c3)}polyline.c4{stroke:var(--c4)}polyline.c5{stroke:var(--c5)}
circle.c0{fill:var(--c0)}circle.c1{fill:var(--c1)}circle.c2{fill:var(--c2)}
circle.c3{fill:var(--c3)}circle.c4{fill:var(--c4)}circle.c5{fill:var(--c5)}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;color:var(--soft);font-size:13px;margin-top:6px}
.legend i{display:inline-block;width:14px;height:3px;border-radius:2px;margin-right:6px;vertical-align:middle}
i.c0{background:var(--c0)}i.c1{background:var(--c1)}i.c2{background:var(--c2)}
i.c3{background:var(--c3)}i.c4{background:var(--c4)}i.c5{background:var(--c5)}
.card{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;padding:5px 14px 5px 0;border-bottom:1px solid var(--line);vertical-align:top}
tr:last-child>*{border-bottom:0}th{color:var(--soft);font-weight:500}
td{font-variant-numeric:tabular-nums;white-space:nowrap}
pre{margin:0;font:13px/1.45 ui-monospace,SFMono-Regular,Menlo,monospace;white-space:pre}
pre.wrap{white-space:pre-wrap;overflow-wrap:anywhere}
.warn{border-left:4px solid var(--c1)}.warn p{margin:4px 0}
.bar{height:8px;background:var(--line);border-radius:4px;overflow:hidden;margin-top:8px}
.bar i{display:block;height:100%;background:var(--c0)}
footer{color:var(--soft);font-size:13px;margin-top:36px}
@media print{:root{--bg:#fff}main{max-width:none;padding:0}figure,.card,.tile{break-inside:avoid}}
"""
