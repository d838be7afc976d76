// Runs the console without a browser: as much of a page as `showFleet` needs, and what is in it at the end.
const fs = require("node:fs");
const vm = require("node:vm");
const [, , script, answers] = process.argv;
const said = JSON.parse(answers);

class Made {
  constructor(tag) {
    Object.assign(this, { tag, given: {}, children: [], hidden: true });
  }
  setAttribute(name, value) { this.given[name] = value; }
  append(...children) { this.children.push(...children); }
  replaceChildren(...children) { this.children = children; }
  addEventListener() {}
}

const page = new Map();
const context = {
  document: {
    hidden: true,
    createElement: (tag) => new Made(tag),
    querySelector: (selector) => page.get(selector) ?? page.set(selector, new Made(selector)).get(selector),
    querySelectorAll: () => [],
  },
  fetch: async (path) => ({ ok: path in said, status: 404, json: async () => said[path] ?? { message: "not here" } }),
  setTimeout: () => 0,
  sessionStorage: { getItem: () => null, removeItem: () => {} },
  location: { search: "", href: "", origin: "" },
  history: { replaceState: () => {} },
  URL, URLSearchParams, Intl,
};
vm.createContext(context);
vm.runInContext(fs.readFileSync(script, "utf8"), context);

/** A site as its name and class, and what is drawn in it. */
const plain = (made) => made.tag === "div" ? made.children.map(plain) : [made.children[0], made.given.class];
const drawn = () => [...page].find(([selector]) => selector.includes("#nodes .sites"))[1].children.map(plain);
vm.runInContext("showFleet()", context).then(() => {
  console.log(JSON.stringify({ fleet: page.get("#fleet").textContent, sites: drawn() }));
});
