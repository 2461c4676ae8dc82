// Any panel, framed by its title; what a panel is, results/panels.py says.

import { h, visible } from "./dom.js";
import { drawBars, drawCurves, drawTable } from "./charts.js";
import { drawHeat } from "./heat.js";
import { drawLegend, drawStrip } from "./strip.js";

// Options: those of the kind's own drawing, and help: a sentence that says what is seen.
export function drawPanel(panel, options = {}) {
  const body = {
    heatmap: () => drawHeat(panel, options),
    bars: () => drawBars(panel, options),
    curves: () => drawCurves(panel, options),
    table: () => drawTable(panel, options),
    tokenstrip: () => plainStrip(panel, options),
  }[panel.kind]();
  const facts = [...(panel.kind === "bars" || panel.kind === "curves" ? panel.legend : []), ...panel.facts].filter(Boolean);
  const quantity = panel.kind === "heatmap" ? panel.quantity : "";
  return h(
    "figure",
    { class: `tlx-panel tlx-panel-${panel.kind}` },
    h("figcaption", {}, h("b", {}, visible(panel.title)), panel.detail ? h("span", {}, visible(panel.detail)) : null),
    options.help || quantity ? h("p", { class: "tlx-small" }, options.help || "", options.help && quantity ? " " : "", quantity ? `Each number: ${visible(quantity)}.` : "") : null,
    body,
    facts.length ? h("p", { class: "tlx-small tlx-faint" }, visible(facts.join(" · "))) : null,
  );
}

function plainStrip(panel, options) {
  const row = panel.rows[Math.min(panel.chosen, panel.rows.length - 1)];
  return h("div", {}, drawStrip({ text: panel, strip: panel, row, ...options }), drawLegend(panel, row));
}
