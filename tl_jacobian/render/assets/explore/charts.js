// Bars, curves and tables.

import { h, number, percent, visible } from "./dom.js";
import { curveColor, kindColors, solid, tint } from "./color.js";

// Options: tip, onpick(index, event), marks: index -> text of a badge.
export function drawBars(panel, { tip, onpick, marks, most = 40 } = {}) {
  const kinds = [...new Set(panel.bars.map((bar) => bar.kind))];
  const colors = kindColors(kinds);
  const write = panel.percent ? percent : number;
  const bars = panel.bars.slice(0, most);
  const limit = Math.max(...panel.bars.map((bar) => Math.abs(bar.value || 0) + (bar.error || 0)), 1e-30);
  const signed = bars.some((bar) => bar.value < 0);
  const shown = (bar) => `${write(bar.value)}${bar.error === null || bar.error === undefined ? "" : ` ± ${write(bar.error)}`}`;
  // Every row's track is as wide as the others', so that lengths can be compared.
  const widths = { "--value": `${Math.max(5, ...bars.map((bar) => shown(bar).length)) + 1}ch`, ...(marks && bars.some((_, i) => marks(i)) ? { "--mark": "78px" } : {}) };
  const list = h("ul", { class: "tlx-bars" + (signed ? " tlx-signed" : ""), style: widths });
  let line = null;
  bars.forEach((bar, index) => {
    const same = bar.line && bar.line === line;
    line = bar.line;
    const share = (value) => `${(100 * Math.abs(value || 0)) / limit / (signed ? 2 : 1)}%`;
    const color = bar.kind ? colors[bar.kind] : solid(bar.value);
    const fill = h("span", { class: "tlx-fill", style: { width: share(bar.value), background: color } });
    const track = h("span", { class: "tlx-track", "aria-hidden": "true" }, fill);
    if (signed) fill.style.insetInlineStart = bar.value < 0 ? `calc(50% - ${share(bar.value)})` : "50%";
    if (bar.error !== null && bar.error !== undefined) {
      const middle = ((signed ? 50 : 0) + (100 * bar.value) / limit / (signed ? 2 : 1));
      const half = (100 * bar.error) / limit / (signed ? 2 : 1);
      const whisker = { "inset-inline-start": `${middle - half}%`, width: `${2 * half}%` };
      track.append(h("span", { class: "tlx-whisker", style: whisker }));
    }
    const value = shown(bar);
    const name = bar.line ? (same ? "" : bar.line) : bar.name;
    const mark = marks?.(index);
    const parts = [
      h("bdi", { class: "tlx-name" }, visible(name).trimStart() || (name ? "␣".repeat(name.length) : "\u00a0")),
      track,
      h("span", { class: "tlx-value" }, value),
      mark ? h("span", { class: "tlx-mark" }, mark) : null,
    ];
    const label = `${visible(bar.name)}: ${value} ${panel.percent ? "" : panel.quantity}${mark ? `, ${mark}` : ""}`;
    const row = onpick
      ? h("button", { type: "button", class: "tlx-bar", "aria-label": label, onclick: (event) => onpick(index, event) }, parts)
      : h("div", { class: "tlx-bar" }, parts);
    const lines = [`${visible(bar.name)}: ${value}`, panel.percent ? "probability" : panel.quantity, visible(bar.note || "")];
    row.addEventListener("pointermove", (event) => tip?.show(lines, event.clientX, event.clientY));
    row.addEventListener("pointerleave", () => tip?.hide());
    list.append(h("li", { class: bar.line && !same ? "tlx-first" : "" }, row));
  });
  const legend = kinds.filter(Boolean).map((kind) =>
    h("span", { class: "tlx-key" }, h("i", { style: { background: colors[kind] } }), visible(kind)),
  );
  return h("div", {}, list, legend.length ? h("div", { class: "tlx-keys" }, legend) : null);
}

function ticks(low, high, count) {
  const raw = (high - low) / Math.max(1, count) || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((n) => n * power).find((one) => one >= raw);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(Math.abs(at) < step / 1e6 ? 0 : at);
  return found;
}

// Options: tip, onpick(point), lines(point): what the tooltip says of it, label(point): a text beside it.
function curvesPlot(panel, wide, tall, { tip, onpick, lines, label, shared }) {
  const [left, right, top, bottom] = [52, 10, 10, 34];
  const left_out = (curve, x) => curve.marks === "bars" && x < (panel.hidden || 0);
  const all = panel.curves.map((curve) => ({ ...curve, y: curve.y.map((y, i) => (left_out(curve, curve.x[i]) ? null : y)) }));
  const xs = all.flatMap((c) => c.x).filter((x) => x !== null);
  const ys = all.flatMap((c) => [...c.y, ...(c.low || []), ...(c.high || [])]).filter((y) => y !== null);
  const bars = all.some((c) => c.marks === "bars");
  let [x0, x1] = shared || [Math.min(...xs), Math.max(...xs)];
  let [y0, y1] = [Math.min(...ys, bars ? 0 : Infinity), Math.max(...ys, bars ? 0 : -Infinity)];
  for (const guide of panel.guides || []) if (guide.axis === "y") [y0, y1] = [Math.min(y0, guide.at), Math.max(y1, guide.at)];
  if (x0 === x1) [x0, x1] = [x0 - 1, x1 + 1];
  if (y0 === y1) [y0, y1] = [y0 - 1, y1 + 1];
  const pad = (y1 - y0) * 0.06;
  if (y0 !== 0 || !bars) y0 -= pad;
  y1 += pad;
  const logX = panel.log_x && x0 > 0;
  const logY = panel.log_y && y0 > 0;
  const fx = logX ? Math.log10 : (x) => x;
  const fy = logY ? Math.log10 : (y) => y;
  const X = (x) => left + ((fx(x) - fx(x0)) / (fx(x1) - fx(x0))) * (wide - left - right);
  const Y = (y) => tall - bottom - ((fy(y) - fy(y0)) / (fy(y1) - fy(y0))) * (tall - top - bottom);
  const svg = h("svg", { viewBox: `0 0 ${wide} ${tall}`, class: "tlx-plot", role: "img", width: wide, height: tall });
  svg.setAttribute("aria-label", `${panel.title}: ${panel.y_axis} over ${panel.x_axis}; ${all.map((c) => c.name).join(", ")}`);
  for (const y of ticks(y0, y1, tall / 45)) {
    svg.append(h("line", { x1: left, x2: wide - right, y1: Y(y), y2: Y(y), class: "tlx-grid" }));
    svg.append(h("text", { x: left - 6, y: Y(y) + 4, "text-anchor": "end" }, number(y)));
  }
  const marks = ticks(x0, x1, wide / 80).filter((x) => !panel.whole_x || Number.isInteger(x));
  for (const x of marks) svg.append(h("text", { x: X(x), y: tall - bottom + 16, "text-anchor": "middle" }, number(x)));
  svg.append(h("text", { x: (left + wide) / 2, y: tall - 3, "text-anchor": "middle", class: "tlx-axis" }, panel.x_axis));
  svg.append(h("text", { transform: `translate(12 ${tall / 2 - 8}) rotate(-90)`, "text-anchor": "middle", class: "tlx-axis" }, panel.y_axis));
  if (panel.hidden) {
    svg.append(h("rect", { x: X(x0), y: top, width: Math.max(8, X(panel.hidden - 0.5) - X(x0)), height: tall - top - bottom, class: "tlx-hatched" }));
  }
  for (const guide of panel.guides || []) {
    const [a, b, c, d] = guide.axis === "y" ? [left, wide - right, Y(guide.at), Y(guide.at)]
      : guide.axis === "x" ? [X(guide.at), X(guide.at), top, tall - bottom] : [X(x0), X(x1), Y(x0), Y(x1)];
    svg.append(h("line", { x1: a, x2: b, y1: c, y2: d, class: "tlx-guide" }, h("title", {}, guide.label || "")));
  }
  const free = all.filter((curve) => !curve.role).length;
  let index = 0;
  const points = [];
  for (const curve of all) {
    const color = curveColor(curve, curve.role ? 0 : index++, free);
    const here = curve.x.map((x, i) => [x, curve.y[i], i]).filter(([x, y]) => x !== null && y !== null);
    const narrow = Math.max(1.5, Math.min(9, ((wide - left - right) / Math.max(1, here.length)) * 0.7));
    for (const [x, y, i] of here) points.push({ curve, x, y, i, px: X(x), py: Y(y), color });
    if (curve.low?.length && curve.marks !== "bars") {
      const up = here.map(([x, , i]) => `${X(x)},${Y(curve.high[i])}`);
      const down = here.map(([x, , i]) => `${X(x)},${Y(curve.low[i])}`).reverse();
      svg.append(h("path", { d: `M${[...up, ...down].join("L")}Z`, fill: color, opacity: 0.16, stroke: "none" }));
    }
    if (curve.marks === "bars") {
      for (const [x, y, i] of here) {
        svg.append(h("rect", { x: X(x) - narrow / 2, width: narrow, y: Math.min(Y(y), Y(Math.max(0, y0))), height: Math.abs(Y(y) - Y(Math.max(0, y0))), fill: color }));
        if (curve.low?.length) svg.append(h("line", { x1: X(x), x2: X(x), y1: Y(curve.low[i]), y2: Y(curve.high[i]), class: "tlx-error" }));
      }
    } else {
      // A point without a number is a gap in the line.
      const path = here.map(([x, y, i], k) => `${k && here[k - 1][2] === i - 1 ? "L" : "M"}${X(x)},${Y(y)}`).join("");
      if (curve.marks === "line" && path) svg.append(h("path", { d: path, fill: "none", stroke: color, "stroke-width": 1.8 }));
      if (curve.marks === "points" || here.length <= 60) {
        for (const [x, y] of here) svg.append(h("circle", { cx: X(x), cy: Y(y), r: curve.marks === "points" ? 2.6 : 2.1, fill: color }));
      }
    }
  }
  const told = new Set();
  for (const point of label ? points : []) {
    const at = `${point.px} ${point.py}`;
    if (told.has(at)) continue;
    told.add(at);
    const end = point.px > wide - 70;
    svg.append(h("text", { x: point.px + (end ? -4 : 4), y: point.py - 4, "text-anchor": end ? "end" : "start", class: "tlx-label" }, visible(label(point))));
  }
  const dot = h("circle", { r: 5, class: "tlx-dot", visibility: "hidden" });
  svg.append(dot);
  const nearest = (event) => {
    const frame = svg.getBoundingClientRect();
    const x = ((event.clientX - frame.left) / frame.width) * wide;
    const y = ((event.clientY - frame.top) / frame.height) * tall;
    return points.reduce((best, p) => {
      const far = (p.px - x) ** 2 + 0.2 * (p.py - y) ** 2;
      return !best || far < best.far ? { ...p, far } : best;
    }, null);
  };
  svg.addEventListener("pointermove", (event) => {
    const p = nearest(event);
    if (!p) return;
    dot.setAttribute("cx", p.px);
    dot.setAttribute("cy", p.py);
    dot.setAttribute("visibility", "visible");
    tip?.show(lines?.(p) || [visible(p.curve.name), `${panel.x_axis}: ${number(p.x)}`, `${panel.y_axis}: ${number(p.y)}`], event.clientX, event.clientY);
  });
  svg.addEventListener("pointerleave", () => {
    dot.setAttribute("visibility", "hidden");
    tip?.hide();
  });
  if (onpick) svg.addEventListener("click", (event) => onpick(nearest(event)));
  return { svg, range: [x0, x1] };
}

export function drawCurves(panel, options = {}) {
  const box = h("div", { class: "tlx-curves" });
  let drawn = 0;
  const draw = () => {
    const wide = Math.max(280, Math.min(1100, box.clientWidth || 640));
    if (Math.abs(wide - drawn) < 2) return;
    drawn = wide;
    const { svg, range } = curvesPlot(panel, wide, panel.square ? Math.min(wide, 420) : options.tall || 230, options);
    const parts = [svg];
    if (panel.below) parts.push(curvesPlot(panel.below, wide, 170, { ...options, shared: range }).svg);
    const named = [...panel.curves, ...(panel.below?.curves || [])].filter((curve) => curve.name);
    const free = panel.curves.filter((curve) => !curve.role).length;
    let index = 0;
    const keys = named.map((curve) => {
      const color = curveColor(curve, curve.role ? 0 : index++, free);
      return h("span", { class: "tlx-key" }, h("i", { style: { background: color } }), visible(curve.name));
    });
    box.replaceChildren(...parts, h("div", { class: "tlx-keys" }, keys), listed(panel));
  };
  new ResizeObserver(() => box.isConnected && box.clientWidth && draw()).observe(box);
  return box;
}

function listed(panel) {
  const fold = h("details", { class: "tlx-numbers" }, h("summary", {}, "numbers"));
  fold.addEventListener("toggle", () => {
    if (!fold.open || fold.childElementCount > 1) return;
    const curves = [...panel.curves, ...(panel.below?.curves || [])];
    const x = [...new Set(curves.flatMap((curve) => curve.x).filter((x) => x !== null))].sort((a, b) => a - b).slice(0, 1000);
    const values = curves.map((curve) => new Map(curve.x.map((at, i) => [at, curve.y[i]])));
    const head = h("tr", {}, h("th", {}, panel.x_axis), curves.map((curve) => h("th", {}, visible(curve.name || panel.y_axis))));
    const body = x.map((at) => h("tr", {}, h("th", {}, number(at)), values.map((one) => h("td", {}, one.has(at) ? number(one.get(at)) : ""))));
    fold.append(h("div", { class: "tlx-scroll" }, h("table", {}, h("thead", {}, head), h("tbody", {}, body))));
  });
  return fold;
}

// Options: onpick(index of a row).
export function drawTable(panel, { onpick } = {}) {
  const cell = (one, i) => {
    const shade = tint({ limit: 1 }, one.shade || 0);
    return h("td", { class: panel.numbers.includes(i) ? "tlx-right" : "", style: { background: shade } }, visible(one.text));
  };
  const line = (row, index) => {
    if (!onpick) return h("tr", {}, row.map(cell));
    const label = row.map((one, i) => `${visible(panel.header[i])} ${visible(one.text) || "none"}`).join(", ");
    const node = h("tr", { class: "tlx-pick", tabIndex: 0, role: "button", "aria-label": label, onclick: () => onpick(index) }, row.map(cell));
    node.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      onpick(index);
    });
    return node;
  };
  return h(
    "div",
    {},
    panel.above ? h("p", { class: "tlx-above" }, visible(panel.above)) : null,
    h("div", { class: "tlx-scroll" }, h("table", {}, h("thead", {}, h("tr", {}, panel.header.map((name) => h("th", {}, visible(name))))),
      h("tbody", {}, panel.rows.map(line)))),
    panel.notes.map((note) => h("p", { class: "tlx-small" }, visible(note))),
  );
}
