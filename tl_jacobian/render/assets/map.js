/* Lets a map's reader point at a target, and draws the map with CircuitsVis' attention view. */
(function (runtime) {
  "use strict";

  function row(spec, target, perRow) {
    return { limit: perRow ? spec.limits[target] : Math.max.apply(null, spec.limits),
             positive: spec.positive, negative: spec.negative, opacity: spec.opacity };
  }

  /* -- the text: tokens coloured as the target pointed at sees them --------------------- */

  function paint(figure, cells, spec, target) {
    var values = spec.rows[target], scale = row(spec, target, spec.perRow);
    cells.forEach(function (cell, i) {
      var seen = i < values.length;
      if (i >= spec.skipped) cell.style.backgroundColor = seen ? runtime.color(values[i], scale) : "transparent";
      cell.title = seen ? i + ": " + values[i] : "";
      cell.classList.toggle("tlj-later", !seen && i !== spec.predicted[target]);
      cell.classList.toggle("tlj-chosen", i === spec.predicted[target]);
    });
    figure.querySelector(".tlj-caption > bdi").textContent = spec.captions[target];
  }

  function read(figure, spec) {
    var cells = figure.querySelectorAll(".tlj-tokens > bdi"), held = spec.rows.length - 1;
    var show = function (target) { paint(figure, cells, spec, target); };
    spec.predicted.forEach(function (unit, target) {
      var cell = cells[unit];
      cell.tabIndex = 0;
      cell.classList.add("tlj-pick");
      cell.addEventListener("mouseenter", function () { show(target); });
      cell.addEventListener("mouseleave", function () { show(held); });
      cell.addEventListener("focus", function () { held = target; show(held); });
    });
    show(held);
  }

  /* -- the map: CircuitsVis' attention view, once with each row on its own scale, once with one for all -- */

  /* A number to calculate colours with, that reads as text in the tooltip. */
  function cell(share, text) {
    var node = {};
    node[Symbol.toPrimitive] = function (hint) { return hint === "string" ? text : share; };
    return node;
  }

  function head(spec, perRow) {
    var square = spec.tokens.map(function () { return []; }); // where nothing is explained, a row is empty
    spec.rows.forEach(function (values, target) {
      var before = spec.predicted[target] - 1; // a word's row is that of the word before it
      if (before < 0) return; // the rest of the first word has none: see the text
      var limit = row(spec, target, perRow).limit || 1;
      square[before] = values.map(function (value, i) {
        var share = i < spec.skipped ? 0 : Math.max(-1, Math.min(1, value / limit));
        var note = i < spec.skipped ? " (left out of the colours)" : "";
        return cell(share, value + note + "; " + spec.captions[target]);
      });
    });
    return square;
  }

  function css(rgb) { return "rgb(" + rgb.join(", ") + ")"; }

  function attention(host, spec) {
    var order = spec.perRow ? [true, false] : [false, true];
    window.CircuitsVis.render(host.id, window.CircuitsVis.AttentionHeads, {
      attention: order.map(function (perRow) { return head(spec, perRow); }),
      attentionHeadNames: order.map(function (perRow) { return spec.names[perRow ? 0 : 1]; }),
      tokens: spec.tokens, maxValue: 1, minValue: -1, maskUpperTri: false,
      positiveColor: css(spec.shades[0]), negativeColor: css(spec.shades[1])
    });
  }

  function folded(host) {
    var place = document.createElement("details"), summary = document.createElement("summary");
    place.className = "tlj-rows";
    summary.textContent = "as a square";
    place.append(summary, host);
    return place;
  }

  function whenDrawn(host, place, done, tries) {
    if (host.querySelectorAll("canvas").length === 3) done();
    else if (tries) setTimeout(whenDrawn, 50, host, place, done, tries - 1);
    else place.remove();
  }

  function mountMap(spec) {
    var figure = document.getElementById(spec.id);
    if (!figure || figure.classList.contains("tlj-read")) return;
    figure.classList.add("tlj-read");
    read(figure, spec);
    if (!spec.attention || !window.CircuitsVis) return;
    var still = figure.querySelector(".tlj-heat"), host = document.createElement("div");
    host.id = spec.id + "-live";
    host.className = "tlj-live tlj-attention";
    var place = spec.square ? host : folded(host);
    still.after(place);
    try { attention(host, spec); } catch (error) { place.remove(); return; }
    whenDrawn(host, place, function () { still.hidden = spec.square; }, 200);
  }

  runtime.mountMap = mountMap;
})(window.tlJacobian);
