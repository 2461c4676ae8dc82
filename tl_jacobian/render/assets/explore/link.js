// A view's state as a link and back, and requests by their names.

// JSON in which the same things always stand in the same order, without what isn't given.
export function stable(value) {
  if (Array.isArray(value)) return `[${value.map(stable).join(",")}]`;
  if (value && typeof value === "object") {
    const keys = Object.keys(value).filter((key) => value[key] !== undefined && value[key] !== null).sort();
    return `{${keys.map((key) => `${JSON.stringify(key)}:${stable(value[key])}`).join(",")}}`;
  }
  return JSON.stringify(value);
}

export function toHash(state) {
  const bytes = new TextEncoder().encode(stable(state));
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return `#s=${btoa(text).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "")}`;
}

// The state in a link; null where there is none that can be read.
export function fromHash(hash) {
  const found = /^#s=([\w-]{1,400000})$/.exec(hash);
  if (!found) return null;
  try {
    const text = atob(found[1].replace(/-/g, "+").replace(/_/g, "/"));
    const state = JSON.parse(new TextDecoder().decode(Uint8Array.from(text, (char) => char.charCodeAt(0))));
    return state && typeof state === "object" && !Array.isArray(state) ? state : null;
  } catch {
    return null;
  }
}

const SILENCE = 5000; // milliseconds after which it is said that a kernel doesn't answer

// Requests to whoever computes: newer ones of a lane take the place of older ones.
export class Asker {
  constructor(model, onstatus) {
    this.model = model;
    this.onstatus = onstatus;
    // A notebook may show one widget twice, and both views hear every answer: each has numbers and lanes of its own.
    this.next = 1 + Math.floor(Math.random() * 2 ** 30);
    this.mine = this.next.toString(36);
    this.open = new Map();
    this.known = new Map();
    model.on("msg:custom", (head, buffers) => this.got(head, buffers));
  }

  ask(lane, ask, done, failed) {
    for (const [id, one] of this.open) if (one.lane === lane) this.drop(id);
    const key = stable(ask);
    const id = this.next++;
    const kept = this.known.get(key);
    if (kept) {
      this.onstatus(this.status());
      done(kept);
      return;
    }
    this.open.set(id, { lane, key, ask, done, failed, began: performance.now(), kept: !["write", "export"].includes(ask.do) });
    this.model.send({ id, lane: `${lane} ${this.mine}`, key, ask });
    this.onstatus(this.status());
  }

  freeze(done) {
    const id = this.next++;
    this.open.set(id, { lane: "freeze", done, kept: false, began: performance.now() });
    this.model.send({ id, freeze: true });
  }

  cancel() {
    for (const [id, one] of this.open) {
      this.model.send({ id: this.next++, cancel: id });
      one.stopping = true;
    }
    this.onstatus(this.status());
  }

  drop(id) {
    this.open.delete(id);
  }

  lost(message) {
    for (const one of this.open.values()) one.failed?.({ message });
    this.open.clear();
    this.onstatus(this.status());
  }

  got(head, buffers) {
    const one = this.open.get(head.id);
    if (!one) return;
    if (head.type === "started") {
      one.started = performance.now();
      one.expected = head.expected;
    } else if (head.type === "progress") {
      one.progress = head;
    } else if (head.type === "queued") {
      one.ahead = head.ahead;
    } else {
      this.drop(head.id);
      if (head.type === "done" || head.type === "frozen") {
        const body = JSON.parse(new TextDecoder().decode(buffers[0]));
        if (one.kept) this.remember(one.key, body);
        one.done(body, head);
      } else {
        one.failed?.(head);
      }
    }
    this.onstatus(this.status());
  }

  remember(key, body) {
    this.known.set(key, body);
    if (this.known.size > 60) this.known.delete(this.known.keys().next().value);
  }

  // What is going on, in words, and how much of it is done (0 to 1, or null).
  status() {
    const one = [...this.open.values()].find((x) => x.started) || [...this.open.values()][0];
    if (!one) return null;
    const silent = !this.model.page && !one.started && one.ahead === undefined && performance.now() - one.began > SILENCE;
    if (silent) return { text: "waiting for the kernel: it is busy with another cell, or it isn't running (then run this cell again)", share: null, left: null };
    const what = one.stopping ? "stopping" : !one.started ? (one.ahead ? `waiting: ${one.ahead} before this` : "waiting") : "computing";
    if (one.progress) {
      const { what: steps, done, total, left } = one.progress;
      return { text: `${what}: ${done} of ${total} ${steps}`, share: done / total, left };
    }
    const gone = one.started ? (performance.now() - one.started) / 1000 : 0;
    if (one.started && one.expected) return { text: what, share: Math.min(0.98, gone / one.expected), left: Math.max(0, one.expected - gone) };
    return { text: what, share: null, left: null };
  }
}
