// Elements, texts and numbers. Text reaches the page as text nodes alone: nothing here, or anywhere, parses HTML.

const SVG_NS = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "g", "path", "line", "rect", "circle", "text", "title", "polyline"]);

// An element with properties, listeners ("onclick": f), ARIA and data attributes, and children (texts or elements).
export function h(tag, props = {}, ...children) {
  const svg = SVG_TAGS.has(tag);
  const node = svg ? document.createElementNS(SVG_NS, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, one] of Object.entries(value)) node.style.setProperty(key, one);
    else if (name === "class") node.setAttribute("class", value);
    else if (!svg && name in node && !name.startsWith("aria") && name !== "list" && name !== "role") node[name] = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const HIDDEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

// A text whose control and direction characters can be seen and do nothing.
export function visible(text) {
  return text.replace(HIDDEN, (char) => {
    const code = char.codePointAt(0);
    if (char === "\n") return "⏎";
    if (char === "\t") return "⇥";
    if (code < 32) return String.fromCodePoint(0x2400 + code);
    return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
  });
}

export const quoted = (text) => `'${visible(text)}'`;

// Three significant digits.
export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "none";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(2).replace("e+", "e");
  return String(Number(value.toPrecision(3)));
}

export const percent = (value) => `${(100 * value).toFixed(1)}%`;

const RTL = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]/g;
const LTR = /[A-Za-z\u00c0-\u024f\u0370-\u03ff\u0400-\u04ff\u3040-\u9fff\uac00-\ud7af]/g;

// The direction of most of a text's letters.
export function directionOf(text) {
  return (text.match(RTL) || []).length > (text.match(LTR) || []).length ? "rtl" : "ltr";
}

// One tooltip for everything below a root: what a number is, where the pointer or the focus is.
export function tooltipOf(root) {
  const box = h("div", { class: "tlx-tip", role: "tooltip", hidden: true });
  root.append(box);
  return {
    show(lines, x, y) {
      box.replaceChildren(...lines.filter(Boolean).map((line, i) => h("div", { class: i ? "" : "tlx-tip-head" }, line)));
      box.hidden = false;
      const frame = root.getBoundingClientRect();
      const wide = box.offsetWidth;
      const tall = box.offsetHeight;
      const below = y + 18 + tall < window.innerHeight;
      box.style.left = `${Math.max(4, Math.min(x - frame.left + 10, frame.width - wide - 4))}px`;
      box.style.top = `${(below ? y + 16 : y - tall - 12) - frame.top}px`;
    },
    hide() {
      box.hidden = true;
    },
  };
}
