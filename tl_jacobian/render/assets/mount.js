/* Swaps a figure's static tokens for CircuitsVis' coloured tokens, once those are really there. */
window.tlJacobian = window.tlJacobian || (function () {
  "use strict";
  var ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };
  var SPANS = ".colored-tokens > span > span";

  /* CircuitsVis writes token text into innerHTML unescaped, yet shows it as text in tooltips.
     A one-item array renders as text, and answers the two string methods that lead to innerHTML
     with escaped HTML. Anything else asked of it throws, and the static view stays. */
  function token(text, breaks) {
    var html = "<bdi>" + text.replace(/[&<>]/g, function (c) { return ENTITIES[c]; }) + "</bdi>";
    var node = [text];
    node.replace = node.toString = function () { return html; };
    node.match = function () { return breaks ? ["\n"] : null; };
    return node;
  }

  /* The same trick for the tooltip's second line: a number that reads as "12: 3.14 ± 0.02". */
  function score(value, index, errors) {
    var node = [index + ": " + value + (errors ? " \u00b1 " + errors[index] : "")];
    node[Symbol.toPrimitive] = function () { return value; };
    return node;
  }

  function color(value, spec) {
    var share = spec.limit ? Math.min(Math.abs(value) / spec.limit, 1) || 0 : 0; // NaN, a gap in a grid, has none
    var rgb = value < 0 ? spec.negative : spec.positive;
    return "rgba(" + rgb.join(", ") + ", " + (share * spec.opacity).toFixed(4) + ")";
  }

  /* CircuitsVis marks the chosen label by a black background, and nothing else. */
  function chosen(host) {
    var labels = host.querySelectorAll(":scope > div > div:first-child > div");
    for (var i = 0; i < labels.length; i++) if (labels[i].style.backgroundColor === "black") return i;
    return 0;
  }

  /* CircuitsVis mixes colours with opaque white; ours are see-through, so that dark themes work. */
  function paint(host, spec) {
    var values = spec.columns[chosen(host)];
    host.querySelectorAll(SPANS).forEach(function (span, i) {
      var bare = i < spec.skipped || isNaN(values[i]);
      span.style.backgroundColor = bare ? "transparent" : color(values[i], spec);
      span.classList.toggle("tlj-skipped", bare);
    });
  }

  function keepPainted(host, spec) {
    var observer = new MutationObserver(function (records) {
      if (!records.some(function (r) { return r.target.matches(SPANS); })) return;
      paint(host, spec);
      observer.takeRecords();
    });
    paint(host, spec);
    observer.observe(host, { attributes: true, attributeFilter: ["style"], subtree: true });
  }

  function render(host, spec, breaks) {
    var vis = window.CircuitsVis;
    var tokens = spec.tokens.map(function (text, i) { return token(text, breaks.has(i)); });
    var limit = spec.limit || 1;
    if (spec.columns.length === 1) {
      var values = spec.columns[0].map(function (value, i) { return score(value, i, spec.errors); });
      vis.render(host.id, vis.ColoredTokens, {
        tokens: tokens, values: values, minValue: -limit, maxValue: limit, paddingBottom: 0
      });
    } else {
      var rows = tokens.map(function (_, i) { return spec.columns.map(function (c) { return c[i]; }); });
      vis.render(host.id, vis.ColoredTokensMulti, {
        tokens: tokens, values: rows, labels: spec.labels,
        positiveBounds: spec.columns.map(function () { return limit; }),
        negativeBounds: spec.columns.map(function () { return -limit; })
      });
    }
  }

  function whenDrawn(host, count, done, tries) {
    if (host.querySelectorAll(SPANS).length === count) done();
    else if (tries) setTimeout(whenDrawn, 50, host, count, done, tries - 1);
    else host.remove();
  }

  function mount(spec) {
    var figure = document.getElementById(spec.id);
    if (!figure || !window.CircuitsVis || figure.querySelector(".tlj-live")) return;
    var still = figure.firstElementChild;
    var several = spec.columns.length > 1;
    var host = document.createElement("div");
    host.id = spec.id + "-live";
    host.className = several ? "tlj-live tlj-multi" : "tlj-live";
    host.hidden = true;
    figure.insertBefore(host, still);
    try { render(host, spec, new Set(spec.breaks)); } catch (error) { host.remove(); return; }
    whenDrawn(host, spec.tokens.length, function () {
      keepPainted(host, spec);
      still.hidden = !several; // rows side by side compare better than one row and a choice: keep both
      host.hidden = false;
    }, 200);
  }

  return { mount: mount, color: color };
})();
