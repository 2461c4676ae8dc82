// A heat map on a canvas: one pixel a cell, scaled up, so that ten thousands of cells are drawn at once.

import { h, number, quoted, visible } from "./dom.js";
import { rgbaOf } from "./color.js";

const MOST_LISTED = 4000; // cells of the table of numbers

const cellName = (panel, row, column) => {
  const text = panel.columns[column].text;
  const name = panel.numbered ? `${column} ${quoted(text)}` : visible(text);
  return `${panel.row_axis} ${visible(panel.rows[row])}, ${panel.column_axis} ${name}`;
};

function pixels(panel) {
  const width = panel.columns.length;
  const hidden = new Set(panel.hidden);
  const data = new ImageData(width, panel.rows.length);
  panel.values.forEach((values, row) => {
    const scale = panel.scales[panel.scales.length > 1 ? row : 0];
    values.forEach((value, column) => {
      const none = value === null;
      const [r, g, b, a] = none ? [128, 128, 128, 0.35] : hidden.has(column) ? [128, 128, 128, 0.2] : rgbaOf(scale, value);
      data.data.set([r, g, b, Math.round(255 * a)], 4 * (row * width + column));
    });
  });
  const canvas = h("canvas", { width, height: panel.rows.length });
  canvas.getContext("2d").putImageData(data, 0, 0);
  return canvas;
}

// Options: tip (a tooltip), onpick(row, column), picked: [row, column], say(text) for screen readers.
export function drawHeat(panel, { tip, onpick, picked, say } = {}) {
  const rows = panel.rows.length;
  const columns = panel.columns.length;
  const texts = panel.columns.map((c, i) => (panel.numbered ? `${i} ${visible(c.text)}` : visible(c.text)));
  const labels = panel.rows.map(visible);
  const canvas = h("canvas", {
    class: "tlx-heat-canvas",
    tabIndex: 0,
    role: "img",
    "aria-label": `Heat map, ${rows} ${panel.row_axis}s by ${columns} ${panel.column_axis}s: ${panel.title}. ${panel.quantity}. ` +
      `Arrow keys move over the cells${onpick ? ", Enter opens one" : ""}.`,
  });
  const cursor = h("div", { class: "tlx-cursor", hidden: true });
  const chosen = h("div", { class: "tlx-cursor tlx-chosen", hidden: true });
  const box = h("div", { class: "tlx-heat" }, h("div", { class: "tlx-heat-inner" }, canvas, chosen, cursor));
  const image = pixels(panel);
  const at = { row: picked ? picked[0] : 0, column: picked ? picked[1] : 0 };
  let size = null;

  function draw() {
    const wide = Math.max(160, box.clientWidth || 600);
    const context = canvas.getContext("2d");
    context.font = "11px ui-sans-serif, system-ui, sans-serif";
    const measured = (list) => Math.max(0, ...list.slice(0, 400).map((text) => context.measureText(text.slice(0, 18)).width));
    const left = Math.min(120, measured(labels) + 10);
    const upright = measured(texts) <= 22;
    const cell = Math.max(2, Math.min(38, (wide - left - 2) / columns));
    const tall = Math.max(2, Math.min(rows > 16 ? 14 : 20, Math.max(cell, rows <= 40 ? 12 : 0), rows > 40 ? 620 / rows : 20));
    const named = cell >= 11 || upright;
    const top = upright ? 16 : named ? Math.min(96, measured(texts) + 8) : 16;
    size = { left, top, cell, tall };
    const ratio = window.devicePixelRatio || 1;
    const full = [left + cell * columns + 1, top + tall * rows + 1];
    canvas.width = Math.round(full[0] * ratio);
    canvas.height = Math.round(full[1] * ratio);
    canvas.style.width = `${full[0]}px`;
    canvas.style.height = `${full[1]}px`;
    context.scale(ratio, ratio);
    context.font = "11px ui-sans-serif, system-ui, sans-serif";
    const ink = getComputedStyle(box).color;
    context.fillStyle = ink;
    context.globalAlpha = 0.78;
    context.textBaseline = "middle";
    const every = Math.max(1, Math.ceil(12 / tall));
    context.textAlign = "right";
    for (let row = 0; row < rows; row += every) context.fillText(labels[row].slice(0, 18), left - 6, top + tall * (row + 0.5));
    const step = Math.max(1, Math.ceil((upright ? measured(texts) + 4 : named ? 11 : 30) / cell));
    for (let column = 0; column < columns; column += step) {
      const x = left + cell * (column + 0.5);
      const text = named ? texts[column].slice(0, 18) : String(column);
      context.save();
      context.translate(x, top - 5);
      context.textAlign = upright || !named ? "center" : "left";
      context.textBaseline = upright || !named ? "bottom" : "middle";
      if (!upright && named) context.rotate(-Math.PI / 2.6);
      context.fillText(text, 0, 0);
      context.restore();
    }
    context.globalAlpha = 1;
    context.imageSmoothingEnabled = false;
    context.drawImage(image, left, top, cell * columns, tall * rows);
    context.strokeStyle = ink;
    context.globalAlpha = 0.25;
    context.strokeRect(left - 0.5, top - 0.5, cell * columns + 1, tall * rows + 1);
    context.globalAlpha = 1;
    for (const frame of panel.frames || []) {
      context.setLineDash(frame.dashed ? [3, 2] : []);
      context.strokeStyle = "#0072b2";
      context.strokeRect(left + cell * frame.column, top + tall * frame.row, cell, tall);
    }
    if (picked) place(chosen, picked[0], picked[1]);
  }

  function place(mark, row, column) {
    mark.hidden = false;
    mark.style.left = `${size.left + size.cell * column}px`;
    mark.style.top = `${size.top + size.tall * row}px`;
    mark.style.width = `${size.cell}px`;
    mark.style.height = `${size.tall}px`;
  }

  const lines = (row, column) => {
    const value = panel.values[row]?.[column];
    const left = panel.hidden.includes(column) ? "left out of the colours" : "";
    return [cellName(panel, row, column), `${number(value)}`, panel.quantity, left];
  };

  function show(row, column, x, y) {
    at.row = row;
    at.column = column;
    place(cursor, row, column);
    const frame = canvas.getBoundingClientRect();
    const here = [x ?? frame.left + size.left + size.cell * (column + 1), y ?? frame.top + size.top + size.tall * (row + 1)];
    tip?.show(lines(row, column), ...here);
  }

  function cellAt(event) {
    const frame = canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - frame.left - size.left) / size.cell);
    const row = Math.floor((event.clientY - frame.top - size.top) / size.tall);
    return row >= 0 && row < rows && column >= 0 && column < columns ? [row, column] : null;
  }

  canvas.addEventListener("pointermove", (event) => {
    const cell = cellAt(event);
    if (cell && panel.values[cell[0]]?.[cell[1]] !== undefined) show(...cell, event.clientX, event.clientY);
    else leave();
  });
  const leave = () => {
    cursor.hidden = true;
    tip?.hide();
  };
  canvas.addEventListener("pointerleave", leave);
  canvas.addEventListener("blur", leave);
  canvas.addEventListener("click", (event) => {
    const cell = cellAt(event);
    if (cell) onpick?.(...cell);
  });
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      onpick?.(at.row, at.column);
    } else if (move) {
      event.preventDefault();
      at.row = Math.max(0, Math.min(rows - 1, at.row + move[0]));
      at.column = Math.max(0, Math.min(columns - 1, at.column + move[1]));
      show(at.row, at.column);
      say?.(lines(at.row, at.column).filter(Boolean).join(", "));
    }
  });
  new ResizeObserver(() => {
    if (box.isConnected && box.clientWidth) draw();
  }).observe(box);
  if (rows * columns <= MOST_LISTED) box.append(numbersOf(panel, texts));
  return box;
}

// The numbers themselves, made when they are asked for.
function numbersOf(panel, texts) {
  const fold = h("details", { class: "tlx-numbers" }, h("summary", {}, "numbers"));
  fold.addEventListener("toggle", () => {
    if (!fold.open || fold.childElementCount > 1) return;
    const head = h("tr", {}, h("th", {}, panel.row_axis), texts.map((text) => h("th", { scope: "col" }, text)));
    const body = panel.values.map((values, row) =>
      h("tr", {}, h("th", { scope: "row" }, visible(panel.rows[row])), values.map((value) => h("td", {}, number(value)))),
    );
    fold.append(h("div", { class: "tlx-scroll" }, h("table", {}, h("thead", {}, head), h("tbody", {}, body))));
  });
  return fold;
}
