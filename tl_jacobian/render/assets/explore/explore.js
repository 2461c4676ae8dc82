// The view: what is looked at, what was asked, and what is on the screen. All numbers come as panels from Python.

import { h, number, percent, quoted, tooltipOf, visible } from "./dom.js";
import { drawBars } from "./charts.js";
import { drawLegend, drawStrip } from "./strip.js";
import { drawPanel } from "./panels.js";
import { Asker, fromHash, stable, toHash } from "./link.js";
import { showEdges } from "./edges.js";
import { showFeatures } from "./features.js";

const GROUPS = { tokens: "tokens", words: "words", sentences: "sentences", lines: "lines", paragraphs: "paragraphs", segments: "segments…", roles: "roles", messages: "messages" };
const TABS = { drill: "Drill-down", test: "Test it", map: "Map", pairs: "Pairs", features: "Features", edges: "Edges", python: "Python" };
const FRESH = { drill: undefined, head: undefined, feature: undefined, edges: undefined, edge: undefined }; // nothing is opened
const TOP = 12; // strongest sources that are listed

// What is looked at, without what goes without saying.
function tidy(view) {
  const out = {};
  const plain = { scope: "semantic", beside: "", by: "tokens", skip_first: true, model: "" };
  for (const [key, value] of Object.entries(view)) {
    if (value === null || value === undefined || value === plain[key]) continue;
    if (key === "segments" && !value.length) continue;
    out[key] = value;
  }
  return out;
}

// An example in a few words.
function sketch(view) {
  const text = view.prompt || (view.messages ? view.messages[view.messages.length - 1].content : (view.series || []).join(", "));
  return text.length > 90 ? `${text.slice(0, 88)}…` : text;
}

class Explore {
  constructor(model, el) {
    this.model = model;
    this.frozen = model.frozen || null;
    this.hello = JSON.parse(model.get("hello") || "{}");
    this.state = { view: tidy({ ...(this.hello.view || {}) }), tab: "drill", values: false };
    if (!model.page) Object.assign(this.state, JSON.parse(model.get("state") || "{}")); // as it was before a reload
    else if (!this.frozen) Object.assign(this.state, fromHash(location.hash) || {});
    this.seen = null;
    this.python = "";
    this.tests = [];
    const still = document.getElementById(model.get("still") || "");
    if (still) still.hidden = true; // the static picture of a notebook, which a kernel makes superfluous
    this.root = h("div", { class: `tlx${model.page ? " tlx-page" : ""}`, lang: "en" });
    this.tip = tooltipOf(this.root);
    this.asker = new Asker(model, (status) => this.showStatus(status));
    if (model.page) model.on("lost", () => this.asker.lost("the connection to the server was lost; what was asked is asked again when it is back"));
    else model.on("comm_live_update", () => {
      const message = "the kernel was restarted: run the cell again for a view that answers";
      this.asker.lost(message);
      this.fail({ message });
    });
    el.append(this.root);
    this.build();
    this.fill();
    if (model.page && !this.frozen) {
      addEventListener("hashchange", () => {
        const found = fromHash(location.hash);
        if (!found || stable(found) === stable(this.linked())) return;
        Object.assign(this.state, FRESH, found);
        this.fill();
        if (this.hasPrompt()) this.read();
      });
    }
    this.clock = setInterval(() => this.asker.open.size && this.showStatus(this.asker.status()), 150);
    if (this.hasPrompt()) this.read();
  }

  close() {
    clearInterval(this.clock);
    this.asker.cancel();
    this.root.remove();
  }

  get view() {
    return this.state.view;
  }

  // What is looked at, with these fields changed.
  plain(change) {
    return tidy({ ...this.view, ...change });
  }

  // The SAE of the model that is looked at, if there is one.
  sae() {
    return (this.hello.models || {})[this.view.model || Object.keys(this.hello.models || {})[0]]?.sae;
  }

  hasPrompt() {
    const { prompt, ids, messages, series } = this.view;
    return Boolean(prompt || ids || messages || series);
  }

  linked() {
    const { view, tab, drill, head, feature, edges, edge, values } = this.state;
    return { view, tab, drill, head, feature, edges, edge, values: values || undefined };
  }

  remember() {
    if (!this.model.page) {
      this.model.set("state", stable(this.linked()));
      this.model.save_changes();
    } else if (!this.frozen) history.replaceState(null, "", toHash(this.linked()));
  }

  // -- the frame ---------------------------------------------------------------------

  build() {
    const button = (text, onclick, props = {}) => h("button", { type: "button", class: "tlx-button", onclick, ...props }, text);
    const frozenOff = { disabled: Boolean(this.frozen) };
    this.said = h("div", { class: "tlx-hidden", "aria-live": "polite" });
    this.say = (text) => (this.said.textContent = text);
    this.models = h("select", { "aria-label": "Model", onchange: () => this.change({ model: this.models.value, answer: null, span: null, target: null, minus: null }) },
      Object.keys(this.hello.models || {}).map((name) => h("option", { value: name }, name)));
    this.models.hidden = this.models.options.length < 2;
    this.modelFacts = h("span", { class: "tlx-small tlx-model" });
    const exports = h("details", { class: "tlx-menu" }, h("summary", { class: "tlx-button" }, "Save"), h("div", { class: "tlx-menu-list" },
      button("JSON (the numbers)", () => this.export("json"), frozenOff),
      button("PNG", () => this.export("png"), frozenOff),
      button("SVG", () => this.export("svg"), frozenOff),
      button("Page (works offline)", () => this.freeze(), frozenOff),
      this.model.page && !this.frozen ? button("Copy link to this state", () => this.copy(location.href, "link")) : null));
    this.header = h("header", { class: "tlx-header" },
      h("h1", {}, "What drove this?"), this.modelFacts, this.models, h("span", { class: "tlx-space" }),
      button("Copy Python", () => this.copy(this.python, "Python"), { title: "the Python that makes what is on the screen" }),
      exports,
      button("◐", () => this.theme(), { "aria-label": "Light or dark", title: "light or dark" }));

    // what is asked about
    this.textarea = h("textarea", { rows: 3, "aria-label": "Prompt", placeholder: "Type or paste a prompt …", dir: "auto", spellcheck: false });
    this.chat = h("div", { class: "tlx-chat" });
    this.numbers = h("textarea", { rows: 3, "aria-label": "Series of numbers", placeholder: "Numbers, with commas or spaces between them …", spellcheck: false });
    this.kinds = h("div", { class: "tlx-tabs", role: "tablist", "aria-label": "Kind of prompt" });
    for (const [kind, name] of [["text", "Text"], ["chat", "Chat"], ["series", "Numbers"]]) {
      this.kinds.append(h("button", { type: "button", role: "tab", "data-kind": kind, onclick: () => this.showKind(kind) }, name));
    }
    this.examples = h("select", { "aria-label": "Load an example", onchange: () => this.load(this.examples.value) },
      h("option", { value: "" }, "Examples…"), Object.keys(this.hello.examples || {}).map((name) => h("option", { value: name }, name)));
    this.howMany = h("input", { type: "number", min: 1, max: 200, value: 12, class: "tlx-few", "aria-label": "Tokens to write at most" });
    this.run = button("Explain", () => this.submit(), { class: "tlx-button tlx-main", title: "Ctrl+Enter", ...frozenOff });
    const input = h("section", { class: "tlx-card tlx-input", "aria-label": "Prompt" },
      h("div", { class: "tlx-row" }, this.kinds, h("span", { class: "tlx-space" }), this.frozen ? null : this.examples),
      this.textarea, this.chat, this.numbers,
      h("div", { class: "tlx-row" }, this.run,
        h("span", { class: "tlx-group" }, button("Write an answer", () => this.write(), frozenOff), this.howMany, h("span", { class: "tlx-small" }, "tokens")),
        (this.clear = button("Back to the prompt's prediction", () => this.change({ answer: null, span: null, position: null })))));
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.submit();
    });

    // how it is explained
    const option = ([name, one]) => h("option", { value: name, title: one.explains }, one.title);
    const methods = Object.entries(this.hello.methods || {});
    this.scope = h("select", { onchange: () => this.change({ scope: this.scope.value }) }, methods.map(option));
    this.beside = h("select", { onchange: () => this.change({ beside: this.beside.value }) }, h("option", { value: "" }, "nothing"), methods.map(option));
    this.by = h("select", { onchange: () => this.changeBy() }, Object.entries(GROUPS).map(([value, name]) => h("option", { value }, name)));
    this.skip = h("input", { type: "checkbox", onchange: () => this.change({ skip_first: this.skip.checked }) });
    this.showValues = h("input", { type: "checkbox", onchange: () => { this.state.values = this.showValues.checked; this.draw(); this.remember(); } });
    this.segments = h("textarea", { rows: 3, class: "tlx-segments", "aria-label": "Segments", placeholder: "A segment a line — name: a piece of the text", onchange: () => this.changeBy() });
    const label = (text, control) => h("label", {}, h("span", {}, text), control);
    this.explains = h("p", { class: "tlx-small" });
    const how = h("div", { class: "tlx-row tlx-how" }, label("Explain with", this.scope), label("beside", this.beside), label("by", this.by),
      h("label", { class: "tlx-check" }, this.skip, "leave out the first token"), h("label", { class: "tlx-check" }, this.showValues, "show numbers"));

    // what is going on
    this.bar = h("span", { class: "tlx-progress" });
    this.statusText = h("span", { role: "status" });
    this.status = h("div", { class: "tlx-status", hidden: true }, h("span", { class: "tlx-progress-box", "aria-hidden": "true" }, this.bar), this.statusText,
      button("Cancel", () => this.asker.cancel(), { title: "Esc" }));
    this.root.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.asker.open.size) this.asker.cancel();
    });
    this.error = h("div", { class: "tlx-error-box", role: "alert", hidden: true });
    this.main = h("div", {});
    this.detail = h("div", { class: "tlx-detail" });
    this.tabs = h("div", { class: "tlx-tabs tlx-detail-tabs", role: "tablist", "aria-label": "Details" },
      Object.entries(TABS).map(([name, text]) => h("button", { type: "button", role: "tab", "data-tab": name, onclick: () => this.showTab(name) }, text)));
    for (const tabs of [this.kinds, this.tabs]) {
      tabs.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (!step) return;
        const all = [...tabs.children];
        const next = all[(all.indexOf(event.target) + step + all.length) % all.length];
        next.focus();
        next.click();
      });
    }
    this.lower = h("section", { class: "tlx-card", "aria-label": "Details", hidden: true }, this.tabs, this.detail);
    this.answerCard = h("section", { class: "tlx-card tlx-answer-card", "aria-label": "What drove it" }, how, this.segments, this.explains, this.main);
    const banner = this.frozen ? h("p", { class: "tlx-banner" }, "A saved page: everything that was computed before it was saved is here, and nothing is computed.") : null;
    this.answerCard.hidden = true;
    this.intro = h("section", { class: "tlx-intro", "aria-label": "Begin" },
      h("p", {}, "Type a prompt, or begin with one of these. You see which tokens drove the prediction; a click on a token shows through which layers and heads, and a test shows whether it is true."),
      h("div", { class: "tlx-chips" }, Object.entries(this.hello.examples || {}).map(([name, view]) =>
        h("button", { type: "button", class: "tlx-chip", onclick: () => this.load(name) }, h("b", {}, name), h("span", { dir: "auto" }, sketch(view))))));
    this.root.append(this.header, banner || "", input, this.status, this.error, this.intro, this.answerCard, this.lower, this.foot(), this.said);
    this.showKind(this.view.series ? "series" : this.view.messages ? "chat" : "text");
  }

  foot() {
    const keys = [["Ctrl+Enter", "explain the prompt"], ["← → ↑ ↓", "move over tokens and cells"], ["Enter", "open a token's drill-down; explain an answer's token"],
      ["Shift+← →", "mark a span of the answer"], ["P", "explain the prediction at a token"], ["X", "take the token out"], ["E", "edit it"],
      ["Shift+Enter", "on a predicted token: contrast with it"], ["Esc", "cancel"]];
    return h("details", { class: "tlx-foot" }, h("summary", {}, "Keys"), h("dl", {}, keys.map(([key, what]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)))));
  }

  theme() {
    const dark = getComputedStyle(this.root).getPropertyValue("--tlx-dark").trim() === "1";
    this.root.dataset.theme = dark ? "light" : "dark";
    if (this.model.page) document.documentElement.dataset.theme = this.root.dataset.theme;
    this.draw();
    this.showTab(this.state.tab);
  }

  showKind(kind) {
    this.kind = kind;
    for (const tab of this.kinds.children) tab.setAttribute("aria-selected", String(tab.dataset.kind === kind));
    this.textarea.hidden = kind !== "text";
    this.chat.hidden = kind !== "chat";
    this.numbers.hidden = kind !== "series";
    if (kind === "chat" && !this.chat.childElementCount) this.fillChat([{ role: "user", content: "" }]);
  }

  fillChat(messages) {
    const row = (message) => {
      const node = h("div", { class: "tlx-message" },
        h("select", { "aria-label": "Role" }, ["system", "user", "assistant"].map((role) => h("option", { value: role, selected: role === message.role }, role))),
        h("textarea", { rows: 1, "aria-label": "Content", dir: "auto", value: message.content }),
        h("button", { type: "button", class: "tlx-button tlx-quiet", "aria-label": "Remove the message", onclick: () => node.remove() }, "×"));
      return node;
    };
    const add = h("button", { type: "button", class: "tlx-button tlx-quiet", onclick: () => add.before(row({ role: "user", content: "" })) }, "+ message");
    this.chat.replaceChildren(...messages.map(row), add);
  }

  // The controls as the state has them.
  fill() {
    const view = this.view;
    this.showKind(view.series ? "series" : view.messages ? "chat" : "text");
    this.textarea.value = view.prompt || "";
    if (view.messages) this.fillChat(view.messages);
    if (view.series) this.numbers.value = view.series.join(", ");
    this.scope.value = view.scope || "semantic";
    this.beside.value = view.beside || "";
    this.by.value = view.by || "tokens";
    this.segments.hidden = this.by.value !== "segments";
    this.segments.value = (view.segments || []).map((one) => `${one.name}: ${one.text}`).join("\n");
    this.skip.checked = view.skip_first !== false;
    this.showValues.checked = Boolean(this.state.values);
    if (view.model) this.models.value = view.model;
    const facts = (this.hello.models || {})[view.model || Object.keys(this.hello.models || {})[0]] || {};
    this.modelFacts.textContent = [facts.model, facts.dtype].filter(Boolean).join(" · ");
    this.tabs.querySelector("[data-tab=features]").hidden = !this.sae();
    this.clear.hidden = !(view.answer || view.position !== undefined);
    this.explains.textContent = (this.hello.methods || {})[this.scope.value]?.explains || "";
    if (this.frozen) for (const control of [this.textarea, this.numbers, this.howMany, this.segments]) control.readOnly = true;
    if (this.frozen) this.offer();
  }

  // In a saved page: only what was computed can be chosen.
  offer() {
    const reads = this.frozen.filter((ask) => ask.do === "read").map((ask) => stable(ask.view));
    const has = (change) => reads.includes(stable(tidy({ ...this.view, ...change })));
    for (const one of this.scope.options) one.disabled = !has({ scope: one.value });
    for (const one of this.beside.options) one.disabled = !has({ beside: one.value });
    for (const one of this.by.options) one.disabled = !has({ by: one.value });
    this.skip.disabled = !has({ skip_first: this.view.skip_first === false });
  }

  // -- asking ------------------------------------------------------------------------

  change(change) {
    this.state.view = tidy({ ...this.view, ...change });
    if ("answer" in change || "position" in change || "model" in change) Object.assign(this.state, FRESH);
    this.fill();
    if (this.hasPrompt()) this.read();
  }

  changeBy() {
    const by = this.by.value;
    const lines = this.segments.value.split("\n").map((line) => /^\s*([^:]+):\s?(.+)$/.exec(line)).filter(Boolean);
    const segments = lines.map(([, name, text]) => ({ name: name.trim(), text }));
    this.segments.hidden = by !== "segments";
    if (by === "segments" && !segments.length) {
      this.segments.focus();
      return;
    }
    this.change({ by, segments: by === "segments" ? segments : undefined });
  }

  submit() {
    const keep = { scope: this.view.scope, beside: this.view.beside, by: this.view.by, segments: this.view.segments, skip_first: this.view.skip_first, model: this.view.model };
    if (this.kind === "text") this.begin({ ...keep, prompt: this.textarea.value });
    else if (this.kind === "chat") {
      const rows = [...this.chat.querySelectorAll(".tlx-message")];
      this.begin({ ...keep, messages: rows.map((row) => ({ role: row.querySelector("select").value, content: row.querySelector("textarea").value })) });
    } else {
      const series = this.numbers.value.split(/[\s,;]+/).filter(Boolean).map(Number);
      if (series.length < 2 || series.some((x) => !Number.isFinite(x))) this.fail({ message: "expected at least two numbers, such as 0.1, 0.5, 0.9" });
      else this.begin({ ...keep, series });
    }
  }

  begin(view) {
    if (view.prompt === "") {
      this.fail({ message: "the prompt is empty: type something, or load an example" });
      return;
    }
    this.state = { ...this.state, ...FRESH, view: tidy(view) };
    this.tests = [];
    this.fill();
    this.read();
  }

  load(name) {
    this.examples.value = "";
    if (name) this.begin({ ...this.hello.examples[name], model: this.view.model });
  }

  read() {
    this.remember();
    this.error.hidden = true;
    this.answerCard.classList.add("tlx-stale");
    this.asker.ask("main", { do: "read", view: this.view }, (seen) => {
      this.seen = seen;
      this.python = seen.python;
      this.answerCard.classList.remove("tlx-stale");
      this.intro.hidden = true;
      this.answerCard.hidden = this.lower.hidden = false;
      this.draw();
      this.showTab(this.state.tab || "drill");
      const best = seen.panels.attribution.find((p) => p.aside)?.bars[0];
      this.say(best ? `Predicts ${quoted(best.name)} with ${percent(best.value)}.` : "Explained.");
    }, (head) => {
      this.answerCard.classList.remove("tlx-stale");
      this.fail(head);
    });
  }

  write() {
    if (this.kind === "text" && this.textarea.value !== (this.view.prompt || "")) this.state.view = tidy({ ...this.view, prompt: this.textarea.value, messages: undefined, series: undefined });
    if (!this.hasPrompt()) return this.fail({ message: "the prompt is empty: type something, or load an example" });
    const view = tidy({ ...this.view, answer: undefined, span: undefined, position: undefined });
    this.asker.ask("main", { do: "write", view, n_tokens: Math.max(1, Math.min(200, Number(this.howMany.value) || 12)) }, (seen) => {
      this.change({ answer: seen.facts.answer, span: undefined, position: undefined, target: undefined, minus: undefined });
    }, (head) => this.fail(head));
  }

  fail(head) {
    if (head.type === "cancelled") {
      this.say("Cancelled.");
      return;
    }
    this.error.hidden = false;
    this.error.replaceChildren(h("b", {}, head.error ? `${visible(head.error)}: ` : ""), visible(head.message || "it failed"), " ",
      h("button", { type: "button", class: "tlx-button tlx-quiet", "aria-label": "Dismiss", onclick: () => (this.error.hidden = true) }, "×"));
  }

  showStatus(status) {
    this.status.hidden = !status;
    if (!status) return;
    const left = status.left === null || status.left === undefined ? "" : ` · ${status.left < 1 ? "under 1" : Math.ceil(status.left)} s left`;
    const text = `${status.text}${left}`;
    if (this.statusText.textContent !== text) this.statusText.textContent = text;
    this.bar.classList.toggle("tlx-unknown", status.share === null);
    this.bar.style.width = status.share === null ? "30%" : `${100 * status.share}%`;
  }

  // -- the answer --------------------------------------------------------------------

  draw() {
    if (!this.seen) return;
    const { panels, facts, notes } = this.seen;
    const text = panels.text[0];
    const parts = [];
    if (panels.series) parts.push(...panels.series.map((panel) => drawPanel(panel, { tip: this.tip })));
    const strips = [panels.attribution, ...(panels.beside ? [panels.beside] : [])].map((list) => list.find((p) => p.kind === "tokenstrip"));
    const shown = strips.map((strip) => this.stripOf(text, strip, facts));
    const column = h("div", { class: shown.length > 1 ? "tlx-two" : "" }, shown);
    const strongest = strips.map((strip) => this.strongest(strip));
    if (panels.series) parts.push(h("details", { class: "tlx-numbers" }, h("summary", {}, "the same token by token"), column, strongest));
    else parts.push(column);
    const next = panels.attribution.find((panel) => panel.aside) || panels.answer?.[0];
    parts.push(h("div", { class: "tlx-columns" }, panels.series ? [] : strongest, next ? this.predicted(next, facts) : null));
    if (notes.length) parts.push(h("ul", { class: "tlx-notes" }, notes.map((note) => h("li", {}, visible(note)))));
    this.main.replaceChildren(...parts);
  }

  stripOf(text, strip, facts) {
    const row = strip.rows[0];
    const view = this.view;
    const answered = view.position === undefined && facts.answer_start !== null;
    const drawn = drawStrip({
      text, strip, row,
      values: this.state.values,
      tip: this.tip,
      say: this.say,
      start: facts.answer_start,
      span: answered ? view.span || [0, facts.ids.length - facts.answer_start] : null,
      position: facts.position,
      picked: new Set(this.state.drill || []),
      onpick: (at) => this.drill(at, strip),
      onplace: (at) => this.change({ position: at, span: undefined, target: undefined, minus: undefined }),
      onspan: (from, to) => this.change({ position: undefined, span: [from - facts.answer_start, to + 1 - facts.answer_start] }),
      onkey: (key, at) => this.key(key, at, strip),
    });
    return h("div", { class: "tlx-reading" },
      h("div", { class: "tlx-head" }, h("b", {}, visible(strip.title)), h("span", {}, visible(strip.detail))),
      h("p", { class: "tlx-small tlx-faint" }, visible(strip.facts[0] || "")),
      drawn, drawLegend(strip, row));
  }

  // The strongest units as bars, with their errors: what the colours say, in numbers.
  strongest(strip) {
    const row = strip.rows[0];
    const order = row.values.map((value, i) => [i, value]).filter(([i, value]) => value !== null && !strip.hidden.includes(i));
    order.sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
    const bars = order.slice(0, TOP).map(([i, value]) => ({
      name: strip.units[i].text, value, kind: "", line: "", error: row.errors ? row.errors[i] : null,
      note: strip.units[i].positions.length > 1 ? `${strip.units[i].positions.length} tokens` : `token ${strip.units[i].positions[0]}`,
    }));
    const units = order.map(([i]) => strip.units[i]);
    const panel = { bars, percent: false, quantity: strip.legend[0] || row.facts[0] || "" };
    return h("section", { class: "tlx-side" }, h("h2", {}, "Strongest sources"), h("p", { class: "tlx-small tlx-faint" }, visible(strip.title), ": click one to see its way through the layers"),
      drawBars(panel, { tip: this.tip, onpick: (i) => this.drill(units[i].positions[0], strip) }));
  }

  predicted(panel, facts) {
    const answer = facts.answer_start !== null && this.view.position === undefined;
    const method = this.hello.methods[this.view.scope || "semantic"];
    const marks = (i) => {
      const token = facts.predicted[i];
      return answer ? "" : token === this.view.minus ? "contrast" : method.targeted && token === facts.target ? "explained" : "";
    };
    const pick = (i, event) => {
      if (answer) return this.change({ span: [(this.view.span || [0])[0] + i, (this.view.span || [0])[0] + i + 1] });
      const token = facts.predicted[i];
      const contrast = event.shiftKey || event.ctrlKey || event.metaKey;
      const scope = method.targeted ? this.view.scope : "semantic";
      if (contrast) this.change({ scope, target: facts.target, minus: token === this.view.minus || token === facts.target ? undefined : token });
      else this.change({ scope, target: token, minus: token === this.view.minus ? undefined : this.view.minus });
    };
    const hint = answer ? "click a token of the answer to explain it alone" : "click one to explain it, Shift-click another to contrast";
    const actions = this.view.minus !== undefined ? h("button", { type: "button", class: "tlx-button tlx-quiet", onclick: () => this.change({ minus: undefined }) }, "no contrast") : null;
    return h("section", { class: "tlx-side tlx-predicted" }, h("h2", {}, visible(panel.title.charAt(0).toUpperCase() + panel.title.slice(1))),
      h("p", { class: "tlx-small tlx-faint" }, hint, " ", actions), drawBars(panel, { tip: this.tip, onpick: pick, marks }));
  }

  // -- details -----------------------------------------------------------------------

  showTab(name) {
    this.state.tab = name;
    for (const tab of this.tabs.children) tab.setAttribute("aria-selected", String(tab.dataset.tab === name));
    this.remember();
    ({ drill: () => this.showDrill(), test: () => this.showTest(), map: () => this.showMap(), pairs: () => this.showPairs(), features: () => showFeatures(this), edges: () => showEdges(this), python: () => this.showPython() })[name]?.();
  }

  unitOf(at, strip) {
    return strip?.units.find((unit) => unit.positions.includes(at))?.positions || [at];
  }

  drill(at, strip) {
    this.state.drill = this.unitOf(at, strip);
    this.state.head = undefined;
    this.draw();
    this.showTab("drill");
    this.lower.scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  }

  named(positions) {
    return quoted(this.textOf(positions));
  }

  textOf(positions) {
    return positions.map((at) => this.seen.panels.text[0].units[at]?.text || "").join("");
  }

  showDrill() {
    const at = this.state.drill;
    if (!at) {
      this.detail.replaceChildren(h("p", { class: "tlx-empty" }, "Click a token (or focus it and press Enter) to see which layers, positions and heads carry its influence."));
      return;
    }
    const box = h("div", {}, h("p", { class: "tlx-empty" }, `following ${this.named(at)} through the layers …`));
    this.detail.replaceChildren(box);
    this.asker.ask("drill", { do: "drill", view: this.view, positions: at }, (seen) => {
      if (this.state.tab !== "drill") return;
      this.python = seen.python;
      const [route, stays] = seen.panels.route || [];
      const heads = seen.panels.heads?.[0];
      const [reads, parts] = seen.panels.reads?.length > 1 ? seen.panels.reads : [undefined, seen.panels.reads?.[0]];
      const onhead = (row, column, panel) => /^H\d+$/.test(panel.columns[column].text) && this.head(Number(panel.rows[row]), Number(panel.columns[column].text.slice(1)));
      const map = (panel, help, more = {}) => panel && drawPanel(panel, { tip: this.tip, say: this.say, help, ...more });
      box.replaceChildren(...[
        h("div", { class: "tlx-head" }, h("b", {}, this.named(at)), h("span", {}, `token ${at.join(", ")}`),
          h("button", { type: "button", class: "tlx-button tlx-quiet", onclick: () => { this.state.test = { change: "drop" }; this.showTab("test"); } }, "test it →")),
        h("div", { class: "tlx-columns" },
          map(route, "Each layer's numbers add up to the token's score: follow the colour down to see at which positions its influence travels."),
          stays && drawPanel(stays, { tip: this.tip, help: "The share of the score that is still at the token itself, has reached the explained position, or is elsewhere." })),
        h("div", { class: "tlx-columns" },
          map(reads, "Along the direct path into the prediction. Click a head.", { onpick: (r, c) => onhead(r, c, reads) }),
          map(heads, "First-order change if a head's output at all tokens were scaled. Click a head.", { onpick: (r, c) => onhead(r, c, heads), picked: this.state.head && heads ? [heads.rows.indexOf(String(this.state.head[0])), this.state.head[1]] : null })),
        (this.headBox = h("div", { class: "tlx-headbox" })),
        h("div", { class: "tlx-columns" },
          map(seen.panels.layers?.[0], "Where a change of the residual stream by its own size would matter, whatever token it came from."),
          parts && drawPanel(parts, { tip: this.tip })),
        seen.notes.length ? h("ul", { class: "tlx-notes" }, seen.notes.map((note) => h("li", {}, visible(note)))) : null,
      ].filter(Boolean));
      if (this.state.head) this.showHead();
    }, (head) => { box.replaceChildren(); this.fail(head); });
    this.remember();
  }

  head(layer, head) {
    this.state.head = [layer, head];
    this.remember();
    this.showHead();
  }

  showHead() {
    const [layer, head] = this.state.head;
    const name = `L${layer}H${head}`;
    const box = this.headBox;
    box.replaceChildren(h("p", { class: "tlx-empty" }, `reading head ${name} …`));
    this.asker.ask("head", { do: "head", view: this.view, layer, head }, (seen) => {
      this.python = seen.python;
      const test = (change) => h("button", { type: "button", class: "tlx-button tlx-quiet", onclick: () => { this.state.test = change; this.showTab("test"); } }, "silence it and see →");
      box.replaceChildren(...[
        h("div", { class: "tlx-head" }, h("b", {}, `Head ${name}`), test({ change: "silence" })),
        h("div", { class: "tlx-columns" },
          seen.panels.pattern && drawPanel(seen.panels.pattern[0], { tip: this.tip, say: this.say, help: "From each reading token (a row) to the tokens that it looks at." }),
          seen.panels.share && drawPanel({ ...seen.panels.share[0], title: `influence through ${name}` }, { tip: this.tip, say: this.say, help: "The share of each token's score that flows through this head." })),
        ...seen.notes.map((note) => h("p", { class: "tlx-small" }, visible(note))),
      ]);
      box.scrollIntoView({ block: "nearest" });
    }, (failed) => { box.replaceChildren(); this.fail(failed); });
  }

  key(key, at, strip) {
    this.state.drill = this.unitOf(at, strip);
    this.draw();
    if (key === "d") return this.showTab("drill");
    this.state.test = { change: key === "x" ? "drop" : "edit" };
    this.showTab("test");
    if (key === "x") this.test({ change: "drop", positions: this.state.drill });
    else this.detail.querySelector("input[type=text]")?.focus();
  }

  showTest() {
    if (this.frozen) return this.thawTests();
    const at = this.state.drill;
    const head = this.state.head;
    const layers = this.seen ? h("input", { type: "number", min: 0, value: head ? head[0] : 0, class: "tlx-few", "aria-label": "Layer" }) : null;
    const heads = h("input", { type: "number", min: 0, value: head ? head[1] : 0, class: "tlx-few", "aria-label": "Head" });
    const kind = h("select", { "aria-label": "What", onchange: () => (heads.hidden = kind.value !== "head") },
      [["head", "head"], ["attn_out", "attention of"], ["mlp_out", "MLP of"], ["resid_pre", "stream before"]].map(([value, name]) => h("option", { value }, name)));
    const only = h("input", { type: "checkbox" });
    const how = h("select", { "aria-label": "Replaced by" }, h("option", { value: "zero" }, "zero"), h("option", { value: "mean" }, "its mean over the tokens"));
    const edit = h("input", { type: "text", "aria-label": "Other text for the picked tokens", placeholder: " other text", dir: "auto" });
    if (at) edit.value = this.textOf(at);
    const go = (text, make) => h("button", { type: "button", class: "tlx-button", onclick: () => this.test(make()) }, text);
    const where = () => (only.checked && at ? { positions: at } : {});
    const place = () => ({ kind: kind.value, layer: Number(layers.value), ...(kind.value === "head" ? { heads: [Number(heads.value)] } : {}), ...where() });
    edit.addEventListener("keydown", (event) => event.key === "Enter" && this.test({ change: "edit", positions: at, text: edit.value }));
    this.results = h("div", { class: "tlx-results" });
    this.detail.replaceChildren(
      h("p", { class: "tlx-small" }, "A score is a promise about small changes. Make a change, and see what it had promised beside what the model then does."),
      at
        ? h("div", { class: "tlx-row tlx-test" }, h("b", {}, this.named(at)), go("Take it out (zero)", () => ({ change: "drop", positions: at })),
          go("Take it out (mean)", () => ({ change: "drop", positions: at, replacement: "mean" })), edit, go("Put this in its place", () => ({ change: "edit", positions: at, text: edit.value })))
        : h("p", { class: "tlx-empty" }, "Click a token to take it out or to edit it."),
      h("div", { class: "tlx-row tlx-test" }, kind, h("label", {}, "layer", layers), heads, h("span", {}, "replaced by"), how, at ? h("label", { class: "tlx-check" }, only, "at the picked token alone") : null,
        go("Silence", () => ({ change: "silence", replacement: how.value, ...place() })),
        at ? h("button", { type: "button", class: "tlx-button", title: "the activation takes the value that it has in the prompt with your text in the picked tokens' place; both must have as many tokens",
          onclick: () => this.test({ change: "patch", ...place(), edited: at, text: edit.value }) }, "Patch from the edited prompt") : null),
      this.results);
    this.drawTests();
  }

  // In a saved page: the tests of what is looked at.
  thawTests() {
    const made = this.frozen.filter((one) => (one.do === "try" || one.remove || one.check?.length) && stable(one.view) === stable(this.view));
    this.tests = [];
    this.results = h("div", { class: "tlx-results" });
    this.detail.replaceChildren(made.length ? this.results : h("p", { class: "tlx-empty" }, "No test of this was made before the page was saved."));
    made.forEach((ask, i) => this.asker.ask(`test ${i}`, ask, (seen) => {
      this.tests.push({ seen, tab: "test" });
      this.drawTests();
    }));
  }

  test(change) {
    if (!this.frozen) this.testing({ do: "try", view: this.view, ...change });
  }

  testing(ask) {
    this.asker.ask("test", ask, (seen) => {
      this.python = seen.python;
      this.tests = [{ seen, tab: this.state.tab }, ...this.tests.filter((one) => one.seen !== seen)].slice(0, 6);
      this.drawTests();
      const { promised, effect } = seen.facts;
      this.say(`Promised ${promised === null ? "nothing" : number(promised)}, true effect ${number(effect)}.`);
    }, (head) => this.fail(head));
  }

  drawTests() {
    if (!this.results?.isConnected) return;
    const here = this.tests.filter((one) => this.state.tab === "test" || one.tab === this.state.tab);
    this.results.replaceChildren(...here.map(({ seen }) => {
      const { promised, effect } = seen.facts;
      const ratio = promised && effect ? effect / promised : null;
      const verdict = promised === null ? "no promise to hold it against" : ratio === null ? "no effect" : ratio < 0 ? "the other way than promised" : ratio > 0.8 && ratio < 1.25 ? "as promised" : `${number(ratio)} times what was promised`;
      return h("article", { class: "tlx-result" }, h("p", { class: "tlx-verdict" }, verdict), h("div", { class: "tlx-columns" }, seen.panels.test.map((panel) => drawPanel(panel, { tip: this.tip }))));
    }));
  }

  showMap() {
    const box = h("div", {});
    this.detail.replaceChildren(box);
    const view = tidy({ ...this.view, target: undefined, minus: undefined, position: undefined, span: undefined, beside: undefined, by: this.view.by === "words" ? "words" : undefined });
    const ask = { do: "map", view };
    const show = () => {
      box.replaceChildren(h("p", { class: "tlx-empty" }, "explaining every position …"));
      this.asker.ask("map", ask, (seen) => {
        if (this.state.tab !== "map") return;
        this.python = seen.python;
        const panel = seen.panels.map[0];
        box.replaceChildren(drawPanel(panel, { tip: this.tip, say: this.say, help: "Each row explains the prediction of one position, on its own scale; click a row to look at it.",
          onpick: (row) => this.change({ position: this.placeOf(panel, row), span: undefined, target: undefined, minus: undefined }) }));
      }, (head) => { box.replaceChildren(); this.fail(head); });
    };
    if (this.asker.known.has(stable(ask)) || this.frozen) show();
    else box.append(h("p", { class: "tlx-empty" }, "What drove every prediction along the text: as many backward passes as tokens. ",
      h("button", { type: "button", class: "tlx-button tlx-main", onclick: show }, "Compute the map")));
  }

  showPairs() {
    const box = h("div", {});
    this.detail.replaceChildren(box);
    const ask = { do: "pairs", view: tidy({ ...this.view, beside: undefined, by: this.view.by === "words" ? "words" : undefined }) };
    const show = () => {
      box.replaceChildren(h("p", { class: "tlx-empty" }, "comparing every two tokens …"));
      this.asker.ask("pairs", ask, (seen) => {
        if (this.state.tab !== "pairs") return;
        this.python = seen.python;
        const [heat, strongest] = seen.panels.pairs;
        const onpick = (row, column) => {
          const both = [...heat.columns[row].positions, ...heat.columns[column].positions];
          this.state.drill = [...new Set(both)].sort((a, b) => a - b);
          this.state.head = undefined;
          this.draw();
          this.showTab("drill");
        };
        box.replaceChildren(
          drawPanel(heat, { tip: this.tip, say: this.say, onpick, help: "1: the same small change of both moves the prediction the same way; -1: against each other. Click a pair to follow both through the layers." }),
          drawPanel(strongest, { tip: this.tip }),
          ...seen.notes.map((note) => h("p", { class: "tlx-small" }, visible(note))));
      }, (head) => { box.replaceChildren(); this.fail(head); });
    };
    if (this.asker.known.has(stable(ask)) || this.frozen) show();
    else box.append(h("p", { class: "tlx-empty" }, "Which two tokens act together: from the products that score each alone. ",
      h("button", { type: "button", class: "tlx-button tlx-main", onclick: show }, "Compare every pair")));
  }

  placeOf(panel, row) {
    const found = /^(\d+) /.exec(panel.rows[row]);
    return found ? Number(found[1]) : Math.min(row, this.seen.facts.ids.length - 1);
  }

  showPython() {
    this.detail.replaceChildren(h("pre", { class: "tlx-python", tabIndex: 0 }, h("code", {}, this.python)),
      h("button", { type: "button", class: "tlx-button", onclick: () => this.copy(this.python, "Python") }, "Copy"));
  }

  // -- out of the view ---------------------------------------------------------------

  async copy(text, what) {
    try {
      await navigator.clipboard.writeText(text);
      this.say(`${what} copied.`);
      this.flash(`${what} copied`);
    } catch {
      this.flash("this browser doesn't let pages copy: take it from the Python tab, or the address bar");
    }
  }

  flash(text) {
    const note = h("div", { class: "tlx-flash" }, text);
    this.root.append(note);
    setTimeout(() => note.remove(), 2200);
  }

  export(format) {
    this.asker.ask("export", { do: "export", view: this.view, format }, ({ file }) => {
      const bytes = Uint8Array.from(atob(file.base64), (char) => char.charCodeAt(0));
      this.download(file.name, new Blob([bytes], { type: { png: "image/png", svg: "image/svg+xml", json: "application/json" }[format] }));
    }, (head) => this.fail(head));
  }

  freeze() {
    this.asker.freeze((page) => this.download("what-drove-this.html", new Blob([page], { type: "text/html" })));
  }

  download(name, blob) {
    const link = h("a", { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
}

export function render({ model, el }) {
  const view = new Explore(model, el);
  return () => view.close();
}

export default { render };
