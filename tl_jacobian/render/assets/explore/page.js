// The page's home: a WebSocket carries what a notebook's comm carries there.

import { render } from "./explore.js";

function connect() {
  const listeners = [];
  const lost = [];
  let socket = null;
  let waiting = [];
  let hello = null;
  let tries = 0;
  const model = {
    page: true,
    get: (name) => (name === "hello" ? hello : undefined),
    set() {},
    save_changes() {},
    on: (name, callback) => (name === "msg:custom" ? listeners : name === "lost" ? lost : []).push(callback),
    off() {},
    send(content) {
      const text = JSON.stringify(content);
      if (socket?.readyState === WebSocket.OPEN) socket.send(text);
      else waiting.push(text);
    },
  };
  const begin = () => {
    socket = new WebSocket(`ws://${location.host}/live`);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      tries = 0;
      for (const text of waiting) socket.send(text);
      waiting = [];
    };
    socket.onmessage = (event) => {
      const bytes = new Uint8Array(event.data);
      const end = bytes.indexOf(10);
      const head = JSON.parse(new TextDecoder().decode(bytes.subarray(0, end)));
      const body = new DataView(event.data, end + 1);
      if (head.type === "hello") {
        const first = hello === null;
        hello = new TextDecoder().decode(body);
        if (first) render({ model, el: document.body });
        return;
      }
      for (const callback of listeners) callback(head, [body]);
    };
    socket.onclose = () => {
      for (const callback of lost) callback();
      tries += 1;
      setTimeout(begin, Math.min(10000, 400 * 2 ** Math.min(tries, 5)));
    };
  };
  begin();
}

connect();
