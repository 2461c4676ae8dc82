/* Swaps a strip's static tokens for CircuitsVis' coloured tokens, once those are really there. */
window.tlJacobian = window.tlJacobian || (function () {
  "use strict";
  var ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };
  var SPANS = ".colored-tokens > span > span";
  var LABELS = ":scope > div > div:first-child > div";

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
    var none = isNaN(value);
    var node = [index + ": " + (none ? "none" : value + (errors ? " \u00b1 " + errors[index] : ""))];
    node[Symbol.toPrimitive] = function () { return none ? 0 : value; };
    return node;
  }

  function color(value, spec) {
    var share = spec.limit ? Math.min(Math.abs(value) / spec.limit, 1) : 0;
    var rgb = value < 0 ? spec.negative : spec.positive;
    return "rgba(" + rgb.join(", ") + ", " + (share * spec.opacity).toFixed(4) + ")";
  }

  /* CircuitsVis marks the chosen label by a black background, and nothing else. */
  function chosen(host) {
    var labels = host.querySelectorAll(LABELS);
    for (var i = 0; i < labels.length; i++) if (labels[i].style.backgroundColor === "black") return i;
    return 0;
  }

  /* CircuitsVis mixes colours with opaque white; ours are see-through, so that dark themes work. */
  function paint(host, spec) {
    var row = spec.columns.length > 1 ? chosen(host) : 0, values = spec.columns[row];
    host.querySelectorAll(SPANS).forEach(function (span, i) {
      var skipped = spec.hidden.indexOf(i) >= 0, framed = spec.framed[row].indexOf(i) >= 0;
      var bare = skipped || i >= values.length || isNaN(values[i]);
      span.style.backgroundColor = bare ? "transparent" : color(values[i], spec);
      span.classList.toggle("tlj-skipped", skipped);
      span.classList.toggle("tlj-later", i >= values.length && !framed);
      span.classList.toggle("tlj-framed", framed);
    });
    var tokens = host.querySelector(".colored-tokens");
    if (spec.coming[row]) tokens.dataset.coming = spec.coming[row];
    else delete tokens.dataset.coming;
    var caption = host.previousElementSibling;
    if (caption) caption.textContent = spec.captions[row];
  }

  function keepPainted(host, spec) {
    var observer = new MutationObserver(function (records) {
      if (!records.some(function (r) { return !r.target.matches(".colored-tokens > div, .colored-tokens > div *"); })) {
        return; // a tooltip follows the pointer
      }
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
    var at = function (row, i) { return i < row.length ? row[i] : NaN; };
    if (spec.columns.length === 1) {
      var values = tokens.map(function (_, i) { return score(at(spec.columns[0], i), i, spec.errors); });
      vis.render(host.id, vis.ColoredTokens, {
        tokens: tokens, values: values, minValue: -limit, maxValue: limit, paddingBottom: 0
      });
    } else {
      var rows = tokens.map(function (_, i) { return spec.columns.map(function (row) { return at(row, i); }); });
      vis.render(host.id, vis.ColoredTokensMulti, {
        tokens: tokens, values: rows, labels: spec.labels,
        positiveBounds: spec.columns.map(function () { return limit; }),
        negativeBounds: spec.columns.map(function () { return -limit; })
      });
    }
  }

  /* As if the pointer had passed over its label. */
  function choose(host, row) {
    var label = host.querySelectorAll(LABELS)[row];
    if (!row || !label) return;
    label.dispatchEvent(new MouseEvent("mouseover", { bubbles: true }));
    var box = label.parentElement;
    if (label.offsetParent) box.scrollTop = label.offsetTop - (label.offsetParent === box ? 0 : box.offsetTop);
  }

  function whenDrawn(host, live, count, done, tries) {
    if (host.querySelectorAll(SPANS).length === count) done();
    else if (tries) setTimeout(whenDrawn, 50, host, live, count, done, tries - 1);
    else live.remove();
  }

  function mount(spec) {
    var figure = document.getElementById(spec.id);
    if (!figure || !window.CircuitsVis || figure.querySelector(".tlj-live")) return;
    spec.columns = spec.columns.map(function (row) {
      return row.map(function (value) { return value === null ? NaN : value; }); // JSON has no NaN
    });
    var still = figure.firstElementChild, several = spec.columns.length > 1;
    var live = document.createElement("div"), host = document.createElement("div");
    live.className = "tlj-live" + (several ? " tlj-several" : "") + (spec.captions.length ? " tlj-choice" : "");
    live.hidden = true;
    if (spec.captions.length) {
      var caption = live.appendChild(document.createElement("div"));
      caption.className = "tlj-caption";
    }
    host.id = spec.id + "-live";
    if (several) host.className = "tlj-multi";
    live.append(host);
    figure.insertBefore(live, still);
    try { render(host, spec, new Set(spec.breaks)); } catch (error) { live.remove(); return; }
    whenDrawn(host, live, spec.tokens.length, function () {
      keepPainted(host, spec);
      still.hidden = !several || !spec.together; // rows side by side compare better than one and a choice: keep both
      live.hidden = false;
      choose(host, spec.chosen);
    }, 200);
  }

  return { mount: mount };
})();
