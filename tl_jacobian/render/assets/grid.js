/* Draws the prompt below a grid's heat map, coloured by the row pointed at: CircuitsVis' coloured tokens. */
(function (runtime) {
  "use strict";

  function mountGrid(spec) {
    var place = document.getElementById(spec.id);
    if (!place || place.firstChild) return;
    // JSON has no NaN
    spec.columns = spec.columns.map(function (row) {
      return row.map(function (value) { return value === null ? NaN : value; });
    });
    // shown by mount() beside the tokens once these are drawn, so that nothing is announced that isn't there
    var caption = document.createElement("div");
    caption.className = "tlj-row-caption";
    caption.textContent = spec.caption;
    caption.hidden = true;
    place.append(caption);
    runtime.mount(spec);
  }

  runtime.mountGrid = mountGrid;
})(window.tlJacobian);
