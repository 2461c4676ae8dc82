// Values to colours, as render/colors.py has them: one hue a sign, its opacity linear in the value; zero is clear.

const POSITIVE = [213, 94, 0];
const NEGATIVE = [0, 114, 178];
const KINDS = ["#009e73", "#cc79a7", "#56b4e9", "#e69f00"];
const CURVES = ["#999999", "#e69f00", "#56b4e9", "#009e73", "#d55e00", "#0072b2", "#cc79a7"];
const MAX_OPACITY = 0.7;

export function strength(scale, value) {
  if (value === null || value === undefined || !scale.limit) return 0;
  return Math.min(Math.abs(value) / scale.limit, 1);
}

export function rgbaOf(scale, value) {
  const [r, g, b] = value < 0 ? NEGATIVE : POSITIVE;
  return [r, g, b, MAX_OPACITY * strength(scale, value)];
}

export function tint(scale, value) {
  const [r, g, b, a] = rgbaOf(scale, value);
  return `rgba(${r},${g},${b},${a.toFixed(3)})`;
}

export const solid = (value) => `rgb(${(value < 0 ? NEGATIVE : POSITIVE).join(",")})`;

export function kindColors(kinds) {
  const named = kinds.filter(Boolean);
  const grey = "#808080";
  return Object.fromEntries(kinds.map((kind) => [kind, kind ? KINDS[named.indexOf(kind)] || grey : grey]));
}

export function curveColor(curve, index, free) {
  if (curve.role === "positive") return solid(1);
  if (curve.role === "negative") return solid(-1);
  if (curve.role === "ink") return "currentColor";
  return free === 1 ? solid(1) : CURVES[(index + 1) % CURVES.length];
}
