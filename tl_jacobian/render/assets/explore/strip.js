// The text: every token, coloured by the unit it belongs to, with its position below it.

import { directionOf, h, number, quoted, visible } from "./dom.js";
import { tint } from "./color.js";

const ROOMY = 400; // tokens up to which each shows its position
const isLast = (unit, at) => unit.positions[unit.positions.length - 1] === at;

// Options: text (the strip of all tokens), strip (that of the scores), row (one of its colourings), values (whether
// numbers are shown), tip, say, start (of the answer), span ([from, to] of explained answer tokens), position (the
// explained one), picked (a set of positions), and what is done: onpick(position, event), onplace(position),
// onspan(from, to), onkey(key, position).
export function drawStrip({ text, strip, row, values, tip, say, start, span, position, picked, ...on }) {
  const tokens = text.units;
  const unitAt = new Map();
  strip.units.forEach((unit, i) => unit.positions.forEach((at) => unitAt.set(at, i)));
  const hidden = new Set(strip.hidden);
  const box = h("div", {
    class: `tlx-strip${tokens.length > ROOMY ? " tlx-dense" : ""}${values ? " tlx-values" : ""}`,
    role: "group",
    dir: directionOf(tokens.map((unit) => unit.text).join("")),
    "aria-label": "The text, a button for each token. Arrow keys move; Enter opens the drill-down of a token, or explains one of the answer; P explains the prediction at it.",
  });
  const nodes = [];
  const inAnswer = (at) => start !== null && start !== undefined && at >= start;
  const describe = (at) => {
    const i = unitAt.get(at);
    const unit = i === undefined ? null : strip.units[i];
    const value = i === undefined ? undefined : row.values[i];
    const error = row.errors?.[i];
    const score = value === undefined || value === null ? "no score: it comes after what is explained"
      : `${number(value)}${error === undefined || error === null ? "" : ` ± ${number(error)}`}`;
    return [
      `${at}: ${quoted(tokens[at].text)}`,
      unit && unit.positions.length > 1 ? `in ${quoted(unit.text)}` : "",
      score,
      value === undefined || value === null ? "" : strip.legend[0] || row.facts[0] || "",
      hidden.has(i) ? "left out of the colours: first tokens draw attention whatever they say" : "",
    ];
  };
  let drag = null;
  tokens.forEach((token, at) => {
    const i = unitAt.get(at);
    const value = i === undefined ? undefined : row.values[i];
    const none = value === undefined || value === null;
    const classes = ["tlx-token"];
    if (none) classes.push("tlx-later");
    if (i !== undefined && hidden.has(i)) classes.push("tlx-skipped");
    if (inAnswer(at)) classes.push("tlx-answer");
    if (inAnswer(at) && (!span || (at - start >= span[0] && at - start < span[1]))) classes.push("tlx-explained");
    if (picked?.has(at)) classes.push("tlx-picked");
    if (at === position && !span && !(start !== null && start !== undefined)) classes.push("tlx-here");
    const joined = i !== undefined && strip.units[i].positions.length > 1;
    if (joined) classes.push("tlx-joined");
    const lines = token.text.split("\n").length - 1;
    const word = h("span", { class: "tlx-word" }, visible(token.text) || "∅");
    if (!none && !hidden.has(i)) word.style.background = tint(row.scale, value);
    const last = i !== undefined && isLast(strip.units[i], at);
    const place = h("span", { class: "tlx-place", title: `explain the prediction after token ${at}` }, String(at));
    const node = h(
      "span",
      { class: classes.join(" "), role: "button", tabIndex: at === 0 ? 0 : -1, "aria-label": describe(at).filter(Boolean).join(", ") },
      word,
      values && last && !none ? h("span", { class: "tlx-score" }, number(value)) : values ? h("span", { class: "tlx-score" }, "\u00a0") : null,
      place,
    );
    if (picked?.has(at)) node.setAttribute("aria-pressed", "true");
    node.dataset.at = at;
    nodes.push(node);
    box.append(node);
    if (lines) box.append(h("span", { class: "tlx-break" }));
  });

  const tokenOf = (event) => event.target.closest?.(".tlx-token");
  const paint = (from, to) => nodes.forEach((node, at) => node.classList.toggle("tlx-dragged", at >= from && at <= to));
  box.addEventListener("pointermove", (event) => {
    const node = tokenOf(event);
    if (node) tip?.show(describe(Number(node.dataset.at)), event.clientX, event.clientY);
    else tip?.hide();
  });
  box.addEventListener("pointerleave", () => tip?.hide());
  box.addEventListener("pointerdown", (event) => {
    const node = tokenOf(event);
    const at = node ? Number(node.dataset.at) : -1;
    if (node && inAnswer(at) && event.button === 0) {
      drag = { from: at, to: at };
      event.preventDefault();
      node.focus();
    }
  });
  box.addEventListener("pointerover", (event) => {
    const node = tokenOf(event);
    if (!drag || !node) return;
    drag.to = Math.max(start, Number(node.dataset.at));
    paint(Math.min(drag.from, drag.to), Math.max(drag.from, drag.to));
  });
  const finish = (event) => {
    if (!drag) return;
    const [from, to] = [Math.min(drag.from, drag.to), Math.max(drag.from, drag.to)];
    drag = null;
    paint(1, 0);
    if (event.type === "pointerup" && !event.target.closest?.(".tlx-place")) on.onspan?.(from, to);
  };
  box.addEventListener("pointerup", finish);
  box.addEventListener("pointercancel", finish);
  box.addEventListener("click", (event) => {
    const node = tokenOf(event);
    if (!node) return;
    const at = Number(node.dataset.at);
    if (event.target.closest(".tlx-place")) on.onplace?.(at);
    else if (!inAnswer(at)) on.onpick?.(at, event);
  });

  let anchor = null;
  const focus = (at) => {
    nodes.forEach((node) => (node.tabIndex = -1));
    nodes[at].tabIndex = 0;
    nodes[at].focus();
    const frame = nodes[at].getBoundingClientRect();
    tip?.show(describe(at), frame.left, frame.bottom - 12);
    say?.(describe(at).filter(Boolean).join(", "));
  };
  box.addEventListener("keydown", (event) => {
    const node = tokenOf(event);
    if (!node || event.ctrlKey || event.metaKey || event.altKey) return;
    const at = Number(node.dataset.at);
    const way = box.dir === "rtl" ? -1 : 1;
    const next = { ArrowLeft: at - way, ArrowRight: at + way, ArrowUp: line(at, -1), ArrowDown: line(at, 1), Home: 0, End: nodes.length - 1 }[event.key];
    if (next !== undefined) {
      event.preventDefault();
      const to = Math.max(0, Math.min(nodes.length - 1, next));
      anchor = event.shiftKey && inAnswer(at) && inAnswer(to) ? (anchor ?? at) : null;
      focus(to);
      if (anchor !== null) paint(Math.min(anchor, to), Math.max(anchor, to));
      else paint(1, 0);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      if (inAnswer(at)) on.onspan?.(Math.min(anchor ?? at, at), Math.max(anchor ?? at, at));
      else on.onpick?.(at, event);
    } else if (["p", "d", "x", "e"].includes(event.key)) {
      event.preventDefault();
      if (event.key === "p") on.onplace?.(at);
      else on.onkey?.(event.key, at);
    }
  });
  box.addEventListener("focusout", () => tip?.hide());

  // The token in the line above or below that is nearest.
  function line(at, way) {
    const here = nodes[at].getBoundingClientRect();
    let best = at;
    let far = Infinity;
    nodes.forEach((node, i) => {
      const there = node.getBoundingClientRect();
      const down = (there.top - here.top) * way;
      if (down < here.height / 2) return;
      const cost = down * 10 + Math.abs(there.left - here.left);
      if (cost < far) [best, far] = [i, cost];
    });
    return best;
  }
  box.focusToken = focus;
  return box;
}

// The colours of a row, and what there is to know about them.
export function drawLegend(strip, row) {
  const { limit, signed } = row.scale;
  const full = { limit: 1 };
  const stops = signed ? `${tint(full, -1)}, transparent, ${tint(full, 1)}` : `transparent, ${tint(full, 1)}`;
  const left = strip.hidden.length
    ? `first token left out (${strip.hidden.map((i) => number(row.values[i])).join(", ")})`
    : "";
  const facts = [...new Set([...strip.legend, ...row.facts, left].filter(Boolean))];
  return h(
    "div",
    { class: "tlx-legend" },
    h("span", {}, signed ? `−${number(limit)}` : "0"),
    h("span", { class: "tlx-ramp", style: { background: `linear-gradient(to right, ${stops})` }, "aria-hidden": "true" }),
    h("span", {}, number(limit)),
    h("span", { class: "tlx-facts" }, visible(facts.join(" · "))),
  );
}
