/* Training in the page. A part is a function that adds one idea to `train`; it runs here, where the tests
   call it, and its text runs again in the worker, which may load no file when the book is opened from file://. */
"use strict";

(() => {
  const train = {};
  const texts = [];
  const part = (define) => {
    define(train);
    texts.push(`(${define})(train);`);
  };

  /* Something to post messages to, that answers `hear(message)`: a worker made of the parts' own text, or the
     page itself, in short slices, where workers are refused. */
  function trainer(hear) {
    const source = `"use strict"; const train = {}; ${texts.join("\n")} train.serve(self, 40);`;
    try {
      const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
      const worker = new Worker(address);
      worker.onmessage = ({ data }) => hear(data);
      return worker;
    } catch {
      const here = { postMessage: hear };
      train.serve(here, 10);
      return { postMessage: (message) => here.onmessage({ data: message }) };
    }
  }

  Object.assign(flowFigures, { train, part, trainer });
})();
