// The console: what the API says, shown; what a person decides, sent. Nothing is decided here.
const EVERY_MS = 3000, SILENT_S = 60, DRAWN = 8, LINES = 100, TICKET = "reuna-sign-in";
const DAY = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

let me = null; // who is signed in: name, roles, csrf
const timelines = new Map(); // run -> its events so far
const shown = new Map(); // section -> what it was last drawn from

const one = (selector) => document.querySelector(selector);

/** An element with attributes, listeners (onclick) and children; text is never read as HTML. */
function el(tag, given = {}, ...children) {
  const made = tag === "svg" || tag === "polyline" || tag === "title"
    ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (typeof value === "function") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** What the API was asked for somebody who has left since. */
class Gone extends Error {}

async function ask(method, path, body) {
  const who = me, headers = me ? { "X-CSRF-Token": me.csrf } : {};
  const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body), credentials: "same-origin" });
  const found = await answer.json();
  if (who !== me) throw new Gone();
  if (answer.ok) return found;
  if (answer.status === 401 && me) leave();
  throw new Error([found.message, found.next_step].filter(Boolean).join(". "));
}

function say(trouble) {
  one("#trouble").textContent = trouble;
  one("#trouble").hidden = !trouble;
}

/** Do what a person asked for, and say when it could not be done. */
async function attempt(work) {
  try {
    say("");
    await work();
  } catch (error) {
    complain(error);
  }
}

function complain(error) {
  if (!(error instanceof Gone)) say(error.message);
}

/** Draw a section anew only when what it is drawn from has changed, so that focus and scroll stay. */
function draw(id, from, make) {
  const text = JSON.stringify(from);
  one(`#${id}`).hidden = false;
  if (shown.get(id) === text) return;
  shown.set(id, text);
  one(`#${id} tbody, #${id} ul, #${id} .sites`).replaceChildren(...make());
}

/** What a table says of a name; a node may be called as what every object has, `constructor`. */
const own = (table, name) => Object.hasOwn(table, name) ? table[name] : undefined;
const has = (...roles) => me.roles.some((role) => roles.includes(role));
const when = (seconds) => DAY.format(new Date(seconds * 1000));

function ago(seconds) {
  const past = Math.max(0, Math.round(Date.now() / 1000 - seconds));
  return past < 120 ? `${past} s ago` : past < 7200 ? `${Math.round(past / 60)} min ago` : when(seconds);
}

// --- what is shown -------------------------------------------------------------------------------

async function showFleet() {
  const [fleet, heard] = await Promise.all([ask("GET", "/v1/fleet"), ask("GET", "/v1/nodes")]);
  one("#fleet").textContent = fleet.fleet;
  const node = (name, kind) => {
    const at = own(heard, name), silent = !at || Date.now() / 1000 - at > SILENT_S;
    return el("p", { class: kind + (silent ? " silent" : "") }, name,
      el("span", { class: "ago" }, at ? ago(at) : "not heard yet"));
  };
  const under = (over) => Object.keys(fleet.fogs).filter((fog) => own(fleet.above, fog) === over);
  const site = (fog) => el("div", { class: "site" }, node(fog, "fog"),
    ...fleet.fogs[fog].map((edge) => node(edge, "edge")), ...under(fog).map(site));
  draw("nodes", [fleet, heard, Math.floor(Date.now() / EVERY_MS)], () => under(undefined).map(site));
}

async function showRuns() {
  const runs = await ask("GET", "/v1/runs");
  await Promise.all(runs.slice(0, DRAWN).map(async ({ run }) => {
    const known = timelines.get(run) ?? [];
    timelines.set(run, known.concat(await ask("GET", `/v1/runs/${encodeURIComponent(run)}/events?after=${known.length}`)));
  }));
  const rows = runs.map((run) => [run, roundsOf(run.run), waitsFor(run)]);
  draw("runs", rows, () => rows.map(([run, rounds, waits]) => el("tr", { "data-run": run.run },
    el("td", {}, run.run, ...(run.why ? [el("span", { class: "ago" }, run.why)] : [])),
    el("td", {}, run.project),
    el("td", { class: waits ? "waiting" : run.state }, waits || run.state, ...gatesOf(run)),
    el("td", { class: "number" }, `${rounds.length} of ${run.rounds}`),
    el("td", {}, curve(rounds.map((each) => each.loss))),
    el("td", { class: "began" }, when(run.began)),
    el("td", {}, ...stopOf(run)))));
}

const roundsOf = (run) => (timelines.get(run) ?? []).filter((each) => each.what === "round").map((each) => each.fields);

/** Which nodes' officers a run waits for, when that was the last thing said of it. */
function waitsFor(run) {
  const last = (timelines.get(run.run) ?? []).filter((each) => ["round", "waits"].includes(each.what)).at(-1);
  return run.state === "running" && last?.what === "waits" ? `waits for the officers of ${last.fields.nodes}` : "";
}

/** What the gates of a run's build said when it had ended, and where it is worst. */
function gatesOf({ gates }) {
  if (!gates) return [];
  const { decision, worst, why } = gates;
  const where = worst ? `, ${worst.gate} at ${worst.site ?? `all ${worst.machines}`}` : why ? `, ${why}` : "";
  return [el("span", { class: "ago" }, `gates: ${decision}${where}`)];
}

function stopOf(run) {
  if (run.state !== "running" || !has("engineer")) return [];
  const stop = () => confirm(`Stop ${run.run}?`) && attempt(async () => {
    await ask("DELETE", `/v1/runs/${encodeURIComponent(run.run)}`);
    await lookAtAll();
  });
  return [el("button", { type: "button", onclick: stop }, "Stop")];
}

/** Losses as a line from left to right, the largest on top. */
function curve(losses) {
  const good = losses.filter(Number.isFinite);
  if (good.length < 2) return "";
  const high = Math.max(...good), low = Math.min(...good), span = high - low || 1;
  const points = good.map((loss, at) => `${(100 * at) / (good.length - 1)},${1 + (28 * (high - loss)) / span}`);
  return el("svg", { viewBox: "0 0 100 30", preserveAspectRatio: "none", role: "img" },
    el("title", {}, `loss ${good[0].toPrecision(3)} to ${good.at(-1).toPrecision(3)}`),
    el("polyline", { points: points.join(" ") }));
}

async function showRollouts() {
  const rollouts = await ask("GET", "/v1/rollouts");
  draw("rollouts", rollouts, () => rollouts.map((each) => el("tr", { "data-rollout": each.rollout },
    el("td", {}, each.rollout),
    el("td", {}, `${each.project} ${each.version}`),
    el("td", { class: each.phase }, each.wave ? `${each.phase} ${each.wave} of ${each.waves}` : each.phase),
    el("td", {}, each.why),
    el("td", { class: "began" }, when(each.began)),
    el("td", {}, ...ordersOf(each)))));
  one("#rollouts").hidden = !rollouts.length;
}

function ordersOf({ rollout, phase }) {
  if (["done", "failed", "aborted"].includes(phase) || !has("engineer")) return [];
  const order = (word) => el("button", { type: "button", onclick: () => confirm(`${word} ${rollout}?`) && attempt(async () => {
    await ask("POST", `/v1/rollouts/${encodeURIComponent(rollout)}`, { order: word });
    await lookAtAll();
  }) }, word);
  return [order(phase === "paused" ? "resume" : "pause"), order("abort")];
}

async function showProposals() {
  const waiting = (await ask("GET", "/v1/proposals")).filter((each) => each.waiting);
  draw("proposals", waiting, () => waiting.map((each) => el("li", { "data-proposal": each.id },
    el("span", {}, `${each.by}: ${each.summary}`, el("br"), `${when(each.at)}, ${each.digest.slice(0, 12)}`),
    ...decisions(each))));
  one("#proposals").hidden = !waiting.length;
}

function decisions(proposal) {
  if (!has("approver") || proposal.by === me.name) return [];
  const decide = (approve) => attempt(async () => {
    await ask("POST", `/v1/proposals/${encodeURIComponent(proposal.id)}`, { approve, digest: proposal.digest });
    await lookAtAll();
  });
  return [
    el("button", { type: "button", onclick: () => decide(true) }, "Approve"),
    el("button", { type: "button", onclick: () => decide(false) }, "Reject"),
  ];
}

async function showPeople() {
  const people = await ask("GET", "/v1/people");
  draw("people", people, () => people.map((each) => el("tr", {},
    el("td", {}, each.name), el("td", {}, each.roles.join(", ")), el("td", {}, each.signs_in),
    el("td", { class: "denied" }, each.disabled ? "disabled" : ""))));
}

async function showAudit() {
  const lines = (await ask("GET", `/v1/audit?last=${LINES}`)).reverse();
  draw("audit", lines, () => lines.map((each) => el("tr", {},
    el("td", {}, when(each.at)), el("td", {}, each.who), el("td", {}, each.via), el("td", {}, each.what),
    el("td", { class: each.verdict.split(" ")[0] }, each.verdict), el("td", {}, each.why ?? each.target ?? ""))));
}

async function look() {
  const parts = [showFleet(), showRuns(), showRollouts(), showProposals()];
  if (has("admin")) parts.push(showPeople());
  await Promise.all(parts);
}

/** The trail as well, which the cloud reads and checks from its first line on: not every three seconds. */
async function lookAtAll() {
  await Promise.all(has("officer", "admin") ? [look(), showAudit()] : [look()]);
}

async function watch() {
  if (me && !document.hidden) await look().catch(complain);
  setTimeout(watch, EVERY_MS);
}

// --- coming and going ----------------------------------------------------------------------------

async function enter(who) {
  me = who;
  one("#sign-in").hidden = true;
  one("#who").hidden = false;
  one("#name").textContent = `${who.name}, ${who.roles.join(", ")}`;
  await lookAtAll();
}

function leave() {
  me = null;
  shown.clear();
  timelines.clear();
  for (const section of document.querySelectorAll("main section")) section.hidden = true;
  one("#who").hidden = true;
  one("#fleet").textContent = "";
  one("#sign-in").hidden = false;
}

/** What an identity provider has sent somebody back with, if that is why we are here. */
async function comeBack() {
  const given = new URLSearchParams(location.search), ticket = sessionStorage.getItem(TICKET);
  sessionStorage.removeItem(TICKET);
  if (!given.has("state") && !given.has("error")) return null;
  history.replaceState(null, "", location.pathname);
  if (!ticket || !given.has("code")) throw new Error(given.get("error_description") ?? given.get("error") ?? "Sign in again");
  return ask("POST", `/v1/sign-ins/${encodeURIComponent(ticket)}`, { code: given.get("code"), state: given.get("state") });
}

async function goToProvider() {
  const { ticket, url } = await ask("POST", "/v1/sign-ins", { redirect: `${location.origin}/` });
  sessionStorage.setItem(TICKET, ticket);
  location.assign(url);
}

one("#password").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = new FormData(event.target);
  attempt(async () => {
    await enter(await ask("POST", "/v1/session", { name: given.get("name"), password: given.get("password") }));
    event.target.reset();
  });
});
one("#at-provider").addEventListener("click", () => attempt(goToProvider));
one("#sign-out").addEventListener("click", () => attempt(async () => {
  await ask("DELETE", "/v1/session");
  leave();
}));

attempt(async () => {
  const { issuer } = await ask("GET", "/v1/sign-ins");
  one("#issuer").textContent = issuer && new URL(issuer).host;
  one("#provider").hidden = !issuer;
  const who = await comeBack().catch(complain) ?? await ask("GET", "/v1/session").catch(() => null);
  if (who) await enter(who);
  else leave();
});
watch();
