// A saved page's home: what was computed is in the page, nothing else can be.

import { render } from "./explore.js";
import { stable } from "./link.js";

function thaw() {
  const { hello, answers } = JSON.parse(document.getElementById("tlx-data").textContent);
  const known = new Map(Object.entries(answers));
  const reads = [...known.keys()].map((key) => JSON.parse(key)).filter((ask) => ask.do === "read");
  const listeners = [];
  const model = {
    page: true,
    frozen: [...known.keys()].map((key) => JSON.parse(key)),
    get: (name) => (name === "hello" ? JSON.stringify({ ...hello, view: reads.length ? reads[reads.length - 1].view : hello.view }) : undefined),
    set() {},
    save_changes() {},
    off() {},
    on: (name, callback) => name === "msg:custom" && listeners.push(callback),
    send(content) {
      if (!content.ask) return;
      const body = known.get(stable(content.ask));
      const head = body
        ? { type: "done", id: content.id }
        : { type: "failed", id: content.id, error: "saved page", message: "this wasn't computed before the page was saved: open the live view for it (tl-jacobian app, or tj.explore(model))" };
      const data = new DataView(new TextEncoder().encode(JSON.stringify(body || null)).buffer);
      queueMicrotask(() => listeners.forEach((callback) => callback(head, [data])));
    },
  };
  render({ model, el: document.body });
}

thaw();
