// The tab of an SAE's features: which drive the prediction; of one that is clicked, which tokens drive it.

import { h, visible } from "./dom.js";
import { drawPanel } from "./panels.js";

export function showFeatures(app) {
  const box = h("div", {}, h("p", { class: "tlx-empty" }, "which features drive it …"));
  app.detail.replaceChildren(box);
  const view = app.plain({ beside: undefined, by: app.view.by === "words" ? "words" : undefined });
  app.asker.ask("features", { do: "features", view: { ...view, by: undefined } }, (seen) => {
    if (app.state.tab !== "features") return;
    app.python = seen.python;
    const found = seen.facts.features;
    const [effects] = seen.panels.effects;
    const [activations] = seen.panels.activations;
    const one = h("div", { class: "tlx-headbox" });
    const open = (row, column) => {
      app.state.feature = [found[row], column];
      app.remember();
      showFeature(app, view, one);
    };
    // Of a bar: at the token where the feature does most.
    const best = (row) => effects.values[row].reduce((top, x, i) => (effects.hidden.includes(i) || Math.abs(x) <= Math.abs(effects.values[row][top]) ? top : i), effects.hidden.length);
    const bars = (panel) => drawPanel(panel, { tip: app.tip, onpick: (i) => {
      const row = found.indexOf(Number(/^feature (\d+)$/.exec(panel.bars[i].name)?.[1]));
      if (row >= 0) open(row, best(row));
    } });
    const at = app.state.feature;
    const picked = at && found.includes(at[0]) ? [found.indexOf(at[0]), at[1]] : null;
    box.replaceChildren(...[
      h("p", { class: "tlx-small" }, visible(`${seen.facts.name}, ${seen.facts.features.length} of ${app.sae().size} features, at ${seen.facts.at}. The stream goes on as it is; what the SAE misses is a part of its own.`)),
      h("div", { class: "tlx-columns" }, drawPanel(effects, { tip: app.tip, say: app.say, onpick: open, picked, help: "A row is a feature, a column a token: what the feature does there to what is explained. Click a cell to see which tokens drive that feature." }), one),
      h("div", { class: "tlx-columns" },
        ...seen.panels.parts.map(bars),
        drawPanel(activations, { tip: app.tip, say: app.say, onpick: open, help: "How active the same features are." })),
      ...seen.notes.map((note) => h("p", { class: "tlx-small" }, visible(note))),
    ]);
    if (at) showFeature(app, view, one);
  }, (head) => { box.replaceChildren(); app.fail(head); });
}

function showFeature(app, view, box) {
  const [feature, position] = app.state.feature;
  box.replaceChildren(h("p", { class: "tlx-empty" }, `which tokens drive feature ${feature} …`));
  const asked = { feature, position };
  app.asker.ask("feature", { do: "feature", view, ...asked }, (seen) => {
    app.python = seen.python;
    app.results = h("div", { class: "tlx-results" });
    const out = { do: "feature", view: app.plain({ beside: undefined, by: undefined }), ...asked, remove: true };
    box.replaceChildren(
      h("div", { class: "tlx-head" }, h("b", {}, `Feature ${feature}`), h("span", {}, visible(`at token ${position}, '${seen.facts.text}'`)),
        h("button", { type: "button", class: "tlx-button tlx-quiet", onclick: () => app.testing(out) }, "take it out and see →"),
        h("button", { type: "button", class: "tlx-button tlx-quiet", onclick: () => app.drill(position) }, "this token's drill-down →")),
      ...seen.panels.feature.map((panel) => drawPanel(panel, { tip: app.tip, say: app.say, onpick: (at) => app.drill(at), help: "Which tokens drive the feature there. Click a token to follow it through the layers." })),
      ...seen.notes.map((note) => h("p", { class: "tlx-small" }, visible(note))),
      app.results);
    app.drawTests();
    box.scrollIntoView({ block: "nearest" });
  }, (head) => { box.replaceChildren(); app.fail(head); });
}
