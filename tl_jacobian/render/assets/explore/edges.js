// The tab of edges between heads and MLPs: those that carry the difference to a prompt with other text.

import { h, visible } from "./dom.js";
import { drawPanel } from "./panels.js";
import { stable } from "./link.js";

const HEAD = /^L(\d+)H(\d+)$/;
const MLP = /^L(\d+)MLP$/;

export function showEdges(app) {
  const made = app.frozen?.filter((one) => one.do === "edges" && !one.check && stable(one.view) === stable(edgeView(app)));
  const found = h("div", {});
  if (app.frozen) {
    app.detail.replaceChildren(made.length ? found : h("p", { class: "tlx-empty" }, "No edges of this were computed before the page was saved."));
    if (made.length) findEdges(app, made[made.length - 1], found);
    return;
  }
  const kept = app.state.edges;
  const at = app.state.drill || kept?.edited;
  if (!at) {
    app.detail.replaceChildren(h("p", { class: "tlx-empty" }, "Click a token (or focus it and press Enter), then say here what another prompt has in its place: edges between heads and MLPs are held against that prompt."));
    return;
  }
  const same = kept && stable(kept.edited) === stable(at);
  const text = h("input", { type: "text", "aria-label": "Text of the other prompt", placeholder: " other text", dir: "auto", value: same ? kept.text : app.textOf(at) });
  const go = () => {
    app.state.edges = { edited: at, text: text.value };
    app.state.edge = undefined;
    app.remember();
    findEdges(app, { do: "edges", view: edgeView(app), edited: at, text: text.value }, found);
  };
  text.addEventListener("keydown", (event) => event.key === "Enter" && go());
  app.detail.replaceChildren(
    h("p", { class: "tlx-small" }, "An edge is what one head or MLP writes and another reads. Put other text, of as many tokens, in the place of the picked ones: the strongest edges carry the difference between the two prompts."),
    h("div", { class: "tlx-row tlx-test" }, h("b", {}, app.named(at)), h("span", {}, "→"), text, h("button", { type: "button", class: "tlx-button tlx-main", onclick: go }, "Find the edges")),
    found);
  if (same) findEdges(app, { do: "edges", view: edgeView(app), ...kept }, found);
}

const edgeView = (app) => app.plain({ beside: undefined, by: undefined, span: undefined });

function findEdges(app, ask, box) {
  box.replaceChildren(h("p", { class: "tlx-empty" }, "comparing every two heads and MLPs …"));
  app.asker.ask("edges", ask, (seen) => {
    if (app.state.tab !== "edges") return;
    app.python = seen.python;
    const one = h("div", { class: "tlx-headbox" });
    const open = (sender, receiver) => {
      app.state.edge = [sender, receiver];
      app.remember();
      showEdge(app, ask, seen.facts, one);
    };
    const [graph] = seen.panels.graph;
    const [grid] = seen.panels.grid;
    const [table] = seen.panels.table;
    // In the graph an edge is three points of its sign's curve: two ends and a gap.
    const signs = { positive: [], negative: [] };
    table.rows.forEach((row, i) => signs[row[2].shade < 0 ? "negative" : "positive"].push({ ends: seen.facts.edges[i], value: row[2].text }));
    const edgeAt = (point) => signs[point.curve.role][Math.floor(point.i / 3)];
    const lines = (point) => [visible(edgeAt(point).ends.join(" → ")), `predicted: ${visible(edgeAt(point).value)}`, visible(graph.detail)];
    box.replaceChildren(
      h("div", { class: "tlx-columns" },
        drawPanel(graph, { tip: app.tip, lines, tall: 430, label: (point) => edgeAt(point).ends[point.i % 3], onpick: (point) => point && open(...edgeAt(point).ends),
          help: "From the head or MLP that writes up to the one that reads. Click an end of an edge." }),
        drawPanel(table, { tip: app.tip, help: "Click an edge to see both ends, and to measure it.", onpick: (i) => open(...seen.facts.edges[i]) })),
      one,
      drawPanel(grid, { tip: app.tip, say: app.say, help: "Senders by receivers. Click a cell.", onpick: (r, c) => grid.values[r][c] !== null && open(grid.rows[r], grid.columns[c].text) }),
      ...seen.notes.map((note) => h("p", { class: "tlx-small" }, visible(note))));
    if (app.state.edge) showEdge(app, ask, seen.facts, one);
  }, (head) => { box.replaceChildren(); app.fail(head); });
}

// The heads at both ends of an edge, and what measures it.
function showEdge(app, ask, { target, minus }, box) {
  const ends = app.state.edge;
  app.results = h("div", { class: "tlx-results" });
  const quiet = (text, onclick, title) => h("button", { type: "button", class: "tlx-button tlx-quiet", onclick, title }, text);
  const patch = (name) => {
    const [, layer, head] = HEAD.exec(name) || MLP.exec(name);
    const place = head === undefined ? { kind: "mlp_out" } : { kind: "head", heads: [Number(head)] };
    return { do: "try", view: { ...edgeView(app), target, minus }, change: "patch", layer: Number(layer), ...place, edited: ask.edited, text: ask.text };
  };
  const patchable = ends.filter((name) => name !== "logits");
  const shown = ends.filter((name) => HEAD.test(name)).map((name) => {
    const [layer, head] = HEAD.exec(name).slice(1).map(Number);
    const place = h("div", {});
    drawEnd(app, name, layer, head, place);
    const drill = () => {
      Object.assign(app.state, { drill: [...ask.edited], head: [layer, head] });
      app.draw();
      app.showTab("drill");
    };
    return h("section", { class: "tlx-side" }, h("div", { class: "tlx-head" }, h("b", {}, `Head ${name}`), quiet("its drill-down →", drill)), place);
  });
  box.replaceChildren(
    h("div", { class: "tlx-head" }, h("b", {}, `Edge ${ends.join(" → ")}`),
      quiet("measure it (path patching) →", () => app.testing({ ...ask, check: [ends] }), "the other prompt's run, in which this one edge alone carries what it carries in this prompt"),
      ...patchable.map((name) => quiet(`patch ${name} whole →`, () => app.testing(patch(name)), "this prompt's run, in which all that it writes is as in the other prompt"))),
    app.results,
    h("div", { class: "tlx-columns" }, shown));
  app.drawTests();
  box.scrollIntoView({ block: "nearest" });
}

function drawEnd(app, name, layer, head, box) {
  box.append(h("p", { class: "tlx-empty" }, `reading head ${name} …`));
  app.asker.ask(`end ${name}`, { do: "head", view: app.plain({ beside: undefined }), layer, head }, (seen) => {
    box.replaceChildren(...[
      seen.panels.pattern && drawPanel(seen.panels.pattern[0], { tip: app.tip, say: app.say }),
      drawPanel({ ...seen.panels.share[0], title: `influence through ${name}` }, { tip: app.tip, say: app.say }),
      ...seen.notes.map((note) => h("p", { class: "tlx-small" }, visible(note))),
    ].filter(Boolean));
  }, (failed) => { box.replaceChildren(); app.fail(failed); });
}
