// The page: the list with its filters, what is chosen of it, and the keys.

import { describeSeeds, drawClasses, drawTimeline, drawUnits, element, nearest, percent } from "./panels.js";
import { makePlayer } from "./player.js";

const PATIENCE = 150; // milliseconds a choice must last before the clip is looked at
const IDLE = 800; // ... and before the next one is looked at in advance
const WEIGHTS = { frame_over_nodes: "pooling over regions", connectivity: "connectivity" };

const by = (id) => document.getElementById(id);
const player = makePlayer(by("picture"), showMoment, (playing) => { by("play").textContent = playing ? "Pause" : "Play"; });
const page = { run: null, entries: [], current: null, clip: null, timeline: null, moveUnits: null, weights: "frame_over_nodes", timer: 0 };

async function ask(path) {
  let response;
  try {
    response = await fetch(path);
  } catch {
    throw new Error("The viewer does not answer; it was stopped, or is busy.");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

async function picture(path) {
  const image = new Image();
  image.src = path;
  await image.decode();
  return image;
}

function say(text, isError = false) {
  by("message").textContent = text;
  by("message").classList.toggle("error", isError);
}

// The list.

function entry(clip) {
  const wrong = clip.label !== clip.prediction;
  const said = element("span", { class: wrong ? "said wrong" : "said" });
  said.append(wrong ? `${clip.label}, predicted ${clip.prediction} ${percent(clip.p)}` : `${clip.label} ${percent(clip.p)}`);
  const button = element("button", { type: "button" }, element("span", { class: "id" }, clip.id), said);
  button.addEventListener("click", () => choose(clip.index));
  const text = `${clip.id} ${clip.subject} ${clip.dataset}`.toLowerCase();
  return { ...clip, wrong, button, text, item: element("li", {}, button) };
}

function filter() {
  const [search, subject, label] = ["search", "subject", "label"].map((id) => by(id).value);
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const mistakes = by("mistakes").checked;
  let [count, wrong] = [0, 0];
  for (const each of page.entries) {
    const fits = (!subject || each.subject === subject) && (!label || each.label === label) && (!mistakes || each.wrong)
      && words.every((word) => each.text.includes(word));
    each.item.hidden = !fits;
    count += fits;
    wrong += fits && each.wrong;
  }
  by("count").textContent = `${count} of ${page.entries.length} clips, ${wrong} predicted wrongly`;
}

const listed = () => page.entries.filter((each) => !each.item.hidden);

function neighbour(step) {
  const there = listed();
  const place = there.findIndex((each) => each.index === page.current);
  return place < 0 ? there[0] : there[place + step];
}

// Scrolls the list, and never the page, until an item of it is to be seen.
function reveal(item) {
  const list = by("clips");
  const top = item.offsetTop - list.offsetTop;
  if (top < list.scrollTop) list.scrollTop = top;
  const below = top + item.offsetHeight - list.clientHeight;
  if (below > list.scrollTop) list.scrollTop = below;
}

// One clip.

async function choose(index) {
  if (index === page.current) return;
  page.current = index;
  page.clip = null;
  clearTimeout(page.timer);
  for (const each of page.entries) {
    each.button.setAttribute("aria-current", each.index === index);
    if (each.index === index) {
      reveal(each.item);
      history.replaceState(null, "", `#${encodeURIComponent(each.id)}`);
    }
  }
  player.clear();
  showControls(null);
  say("Looking at the clip … The first one takes longer: programs are compiled.");
  const stale = () => page.current !== index;
  try {
    const facts = await ask(`/api/clips/${index}`);
    if (stale()) return;
    showFacts(facts);
    await new Promise((done) => { setTimeout(done, PATIENCE); });
    if (stale()) return;
    const clip = await ask(`/api/clips/${index}/playback`);
    const path = (kind) => `/api/clips/${index}/${kind}.png`;
    const [frames, flow] = await Promise.all([clip.times_ms.length ? picture(path("frames")) : null, picture(path("flow"))]);
    if (stale()) return;
    showClip(facts, clip, frames, flow);
    page.timer = setTimeout(() => {
      const next = neighbour(1);
      if (next && !stale()) ask(`/api/clips/${next.index}/playback`).catch(() => {});
    }, IDLE);
  } catch (error) {
    if (!stale()) say(error.message, true);
  }
}

function showFacts(facts) {
  by("clip-id").textContent = facts.id;
  const wrong = facts.label !== facts.prediction;
  const verdict = element("span", { class: wrong ? "wrong" : "" }, `predicted ${facts.prediction} (${percent(facts.p)})`);
  by("clip-about").replaceChildren(`Subject ${facts.subject}, held out in fold ${facts.fold}. Labelled ${facts.label}, `, verdict, ".");
  by("clip-note").textContent = facts.note;
  by("clip-note").hidden = !facts.note;
  drawClasses(by("classes"), page.run, facts);
  by("seeds").textContent = describeSeeds(facts);
}

function showClip(facts, clip, frames, flow) {
  page.clip = clip;
  say("");
  if (clip.differs) {
    by("clip-note").textContent = "The networks say something else of this clip than predictions.csv: corpus, features or table have changed.";
    by("clip-note").hidden = false;
  }
  if (clip.emotion.toLowerCase() !== facts.label.toLowerCase()) by("clip-about").append(` Annotated as ${clip.emotion}.`);
  by("screen").style.aspectRatio = `${clip.width} / ${clip.height}`;
  showControls(clip);
  page.timeline = clip.times_ms.length ? drawTimeline(by("timeline"), clip) : null;
  page.moveUnits = drawUnits(by("units"), page.run, clip);
  by("units-section").hidden = !page.moveUnits;
  if (!page.moveUnits && clip.action_units) by("clip-about").append(` Action units as annotated: ${clip.action_units}.`);
  player.set({ weights: by("attention").value });
  player.load(clip, frames, flow);
}

// Those that the clip has a use for; none while there is no clip.
function showControls(clip) {
  const film = Boolean(clip && clip.times_ms.length > 1);
  by("play").disabled = !film;
  for (const id of ["play", "speed", "flow"]) (by(id).closest("label") ?? by(id)).hidden = Boolean(clip) && !film;
  by("keys").hidden = Boolean(clip) && !film;
  by("timeline").hidden = !film;
  by("wheel").hidden = !clip || (film && !by("flow").checked);
  by("units-section").hidden = true;
  by("regions").textContent = "";
  by("now").textContent = "";
  const names = Object.keys(clip?.weights ?? {});
  by("attention-box").hidden = !names.length;
  const title = (name) => WEIGHTS[name] ?? `graph layer ${Number(name.split("_").at(-1)) + 1}`;
  by("attention").replaceChildren(new Option("off", ""), ...names.map((name) => new Option(title(name), name)));
  by("attention").value = names.includes(page.weights) ? page.weights : "";
}

function showMoment(time, frame) {
  const { clip } = page;
  if (!clip) return;
  const kept = nearest(clip.kept_ms, time);
  if (clip.times_ms.length) {
    const parts = [`${time.toFixed(0)} ms`, `frame ${frame + 1} of ${clip.times_ms.length}`];
    if (clip.raw[frame] !== frame) parts.push(`${clip.raw[frame] + 1} in the corpus`);
    if (clip.kept.includes(frame)) parts.push("kept");
    if (by("flow").checked) parts.push(`flow of ${clip.kept_ms[kept].toFixed(0)} ms`);
    by("now").textContent = parts.join(" · ");
  } else {
    by("now").textContent = "Flow from onset to apex; this corpus has no frames.";
  }
  page.timeline?.move(time);
  const when = page.moveUnits?.(time);
  const said = clip.action_units === null ? "Not annotated." : `Annotated: ${clip.action_units || "none"}.`;
  by("units-about").textContent = when ? `${when} ${said}` : "";
  by("regions").textContent = strongest(clip, time);
}

const regionName = (name) => name.replace(/^r(\d+)c(\d+)$/, (_, r, c) => `row ${Number(r) + 1} column ${Number(c) + 1}`)
  .replace(/_r$/, " (right)").replace(/_l$/, " (left)").replaceAll("_", " ");

function strongest(clip, time) {
  const weights = clip.weights[by("attention").value];
  if (!weights?.length) return "";
  const row = weights[nearest(clip.spoken.map((index) => clip.kept_ms[index]), time)];
  const order = row.map((_, node) => node).sort((a, b) => row[b] - row[a]).slice(0, 4);
  return `Most attention: ${order.map((node) => `${regionName(page.run.nodes[node])} ${percent(row[node])}`).join(", ")}.`;
}

// Keys and controls.

function onKey(event) {
  const { target, key } = event;
  const typing = target.matches("input[type=search], select, textarea");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const ownKey = key === " " && target.matches("button, input") && !target.closest("#clips");
  if (ownKey) return;
  const actions = {
    " ": () => player.toggle(),
    ArrowLeft: () => player.step(-1),
    ArrowRight: () => player.step(1),
    Home: () => player.snap(0),
    End: () => player.snap(Infinity),
    ArrowUp: () => go(-1),
    ArrowDown: () => go(1),
  };
  if (!actions[key]) return;
  event.preventDefault();
  actions[key]();
}

function go(step) {
  const next = neighbour(step);
  if (next) choose(next.index);
}

function connect() {
  by("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["search", "subject", "label", "mistakes"]) by(id).addEventListener("input", filter);
  by("play").addEventListener("click", () => player.toggle());
  by("speed").addEventListener("change", () => player.set({ speed: Number(by("speed").value) }));
  by("flow").addEventListener("change", () => {
    by("wheel").hidden = !by("flow").checked;
    player.set({ flow: by("flow").checked });
  });
  by("attention").addEventListener("change", () => {
    page.weights = by("attention").value;
    player.set({ weights: page.weights });
  });
  // A control that was used by mouse gives the keys back to the film.
  let byMouse = false;
  document.addEventListener("pointerdown", () => { byMouse = true; }, true);
  document.addEventListener("keydown", () => { byMouse = false; }, true);
  for (const id of ["subject", "label", "mistakes", "speed", "flow", "attention"]) {
    by(id).addEventListener("change", () => byMouse && by(id).blur());
  }
  by("play").addEventListener("click", () => byMouse && by("play").blur());
  document.addEventListener("keydown", onKey);

  const line = by("timeline");
  const scrub = (event) => { if (page.timeline) player.snap(page.timeline.timeAt(event.clientX)); };
  line.addEventListener("pointerdown", (event) => {
    player.play(false);
    line.setPointerCapture(event.pointerId);
    scrub(event);
  });
  line.addEventListener("pointermove", (event) => line.hasPointerCapture(event.pointerId) && scrub(event));
  new ResizeObserver(() => {
    if (page.clip && page.timeline) page.timeline = drawTimeline(line, page.clip);
    player.draw();
  }).observe(by("stage"));
  window.addEventListener("hashchange", () => chooseNamed());
}

function chooseNamed() {
  let name = "";
  try {
    name = decodeURIComponent(location.hash.slice(1));
  } catch { /* an address that somebody broke names no clip */ }
  const found = page.entries.find((each) => each.id === name) ?? (page.current === null ? page.entries[0] : null);
  if (found) choose(found.index);
}

function showRun(run) {
  document.title = `${run.name}: clips`;
  by("run-name").textContent = run.name;
  const scores = Object.entries(run.scores).map(([name, value]) => `${name === "accuracy" ? name : name.toUpperCase()} ${value.toFixed(3)}`);
  by("run-about").textContent = [`${run.model} on ${run.dataset}`, run.split, `${run.clips} clips`, `${run.mistakes} predicted wrongly`, ...scores].join(" · ");
  by("run-notes").replaceChildren(...run.notes.map((note) => element("li", {}, note)));
  for (const [id, names] of [["subject", run.subjects], ["label", run.classes]]) {
    by(id).append(...names.map((name) => new Option(name, name)));
  }
}

async function begin() {
  connect();
  try {
    const [run, clips] = await Promise.all([ask("/api/run"), ask("/api/clips")]);
    page.run = run;
    showRun(run);
    page.entries = clips.map(entry);
    by("clips").replaceChildren(...page.entries.map((each) => each.item));
    filter();
    chooseNamed();
  } catch (error) {
    say(error.message, true);
  }
}

begin();
