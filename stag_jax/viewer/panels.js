// What is drawn beside the face: bars of classes and action units, and the line of time. Text goes in as text only.

const SVG = "http://www.w3.org/2000/svg";
const UNIT_NAMES = {
  1: "inner brow raiser", 2: "outer brow raiser", 4: "brow lowerer", 5: "upper lid raiser", 6: "cheek raiser",
  7: "lid tightener", 9: "nose wrinkler", 10: "upper lip raiser", 11: "nasolabial deepener", 12: "lip corner puller",
  13: "sharp lip puller", 14: "dimpler", 15: "lip corner depressor", 16: "lower lip depressor", 17: "chin raiser",
  18: "lip pucker", 20: "lip stretcher", 22: "lip funneler", 23: "lip tightener", 24: "lip pressor", 25: "lips part",
  26: "jaw drop", 27: "mouth stretch", 28: "lip suck", 38: "nostril dilator", 39: "nostril compressor",
  43: "eyes closed", 45: "blink", 46: "wink",
};
const MARGIN = 12; // of the line of time, to each side
const PLOT = 56; // its height
const LINE = 14; // of text
const LEGEND = 170; // room for its first entry; the second goes below where both do not fit
const SPARK = { width: 76, height: 18 };

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function drawn(tag, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text) made.textContent = text;
  return made;
}

export const percent = (value) => `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;

// Index of the time nearest to `when`; -1 where there is none.
export function nearest(times, when) {
  let best = -1;
  times.forEach((time, index) => {
    if (best < 0 || Math.abs(time - when) < Math.abs(times[best] - when)) best = index;
  });
  return best;
}

function bar(name, title) {
  const fill = element("div", { class: "fill" });
  const track = element("div", { class: "track" }, fill);
  const value = element("span", { class: "value" });
  const label = element("span", { class: "name", title }, name);
  const row = element("div", { class: "bar" }, label, track, value);
  const set = (share) => {
    fill.style.width = `${100 * share}%`;
    value.textContent = percent(share);
  };
  return { row, label, track, value, set };
}

// Bars of the classes; a line across a bar is one seed's probability.
export function drawClasses(place, run, facts) {
  place.replaceChildren(...run.classes.map((name, index) => {
    const made = bar(name, name);
    made.set(facts.probability[index]);
    const tags = [];
    if (name === facts.label) tags.push("label");
    if (name === facts.prediction) tags.push("predicted");
    made.row.classList.toggle("predicted", name === facts.prediction);
    made.row.classList.toggle("missed", name === facts.prediction && name !== facts.label);
    if (tags.length) made.label.append(element("span", { class: "tag" }, tags.join(", ")));
    if (facts.by_seed.length > 1) {
      for (const each of facts.by_seed) {
        const line = element("i", { class: "seed", title: `seed ${each.seed}: ${percent(each.probability[index])}` });
        line.style.left = `${100 * each.probability[index]}%`;
        made.track.append(line);
      }
    }
    return made.row;
  }));
}

export function describeSeeds(facts) {
  if (facts.by_seed.length < 2) return "";
  const each = facts.by_seed.map((one) => `seed ${one.seed}: ${one.prediction}`);
  return `Bars are the mean over seeds, lines across them the seeds (${each.join(", ")}).`;
}

// Bars of the action units. Returns what moves them to a time, or null where the networks have none.
export function drawUnits(place, run, clip) {
  const overTime = clip.au_probability;
  if (!overTime && !clip.au_of_clip) {
    place.replaceChildren();
    return null;
  }
  const times = clip.spoken.map((index) => clip.kept_ms[index]);
  const last = clip.times_ms.at(-1) || 1;
  const x = (time) => (1 + (SPARK.width - 2) * Math.min(time / last, 1)).toFixed(1);
  const y = (share) => (SPARK.height - 1 - (SPARK.height - 2) * share).toFixed(1);
  const rows = run.units.map((unit, index) => {
    const seen = clip.annotated[index];
    const name = UNIT_NAMES[unit] ?? "";
    const said = seen === null ? "not annotated" : seen ? "annotated" : "not seen by the annotators";
    const made = bar(`AU ${unit}${seen ? " ●" : ""}`, `${name} (${said})`);
    made.row.classList.add("unit");
    made.row.classList.toggle("annotated", seen === true);
    let cursor = null;
    const curve = Boolean(overTime) && times.length > 1;
    made.row.classList.toggle("alone", !curve);
    if (curve) {
      const spark = drawn("svg", { viewBox: `0 0 ${SPARK.width} ${SPARK.height}`, "aria-hidden": "true" });
      const points = overTime.map((frame, t) => `${x(times[t])},${y(frame[index])}`).join(" ");
      cursor = drawn("line", { class: "cursor", y1: 0, y2: SPARK.height });
      spark.append(drawn("line", { class: "axis", x1: 1, x2: SPARK.width - 1, y1: y(0), y2: y(0) }));
      spark.append(drawn("polyline", { class: "curve", points }), cursor);
      made.row.insertBefore(spark, made.value);
    }
    return { ...made, cursor };
  });
  place.replaceChildren(...rows.map((made) => made.row));
  return (when) => {
    const frame = nearest(times, when);
    rows.forEach((made, index) => {
      made.set(overTime ? overTime[frame][index] : clip.au_of_clip[index]);
      made.cursor?.setAttribute("x1", x(when));
      made.cursor?.setAttribute("x2", x(when));
    });
    return overTime && clip.times_ms.length ? `Of the kept frame at ${times[frame].toFixed(0)} ms.` : "Of the clip as a whole.";
  };
}

function tickStep(span, width) {
  const room = Math.max(2, Math.floor(width / 70));
  const rough = span / room;
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
}

// Names of the marks, in as many lines as they need to lie apart.
function placeMarks(marks, x) {
  const ends = [];
  return Object.entries(marks).sort((a, b) => a[1] - b[1]).map(([name, time]) => {
    const width = 7 * name.length;
    let row = 0;
    while (ends[row] !== undefined && ends[row] > x(time) - width / 2) row += 1;
    ends[row] = x(time) + width / 2 + 6;
    return { name, time, row };
  });
}

// The line of time: marks, attention at the kept frames, movement, and a cursor. Returns how to move it and read it.
export function drawTimeline(place, clip) {
  const width = Math.max(place.clientWidth, 200);
  const span = clip.times_ms.at(-1) || 1;
  const x = (time) => MARGIN + (width - 2 * MARGIN) * (time / span);
  const marks = placeMarks(clip.marks_ms, x);
  const top = LINE * Math.max(0, ...marks.map((mark) => mark.row + 1)) + 4;
  const floor = top + PLOT;
  const narrow = width < 2.5 * LEGEND;
  const height = floor + (narrow ? 3 : 2) * LINE + 12;
  const made = drawn("svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true" });

  const highest = Math.max(...clip.magnitude.map((value) => value ?? 0), 1e-6);
  const moved = clip.times_ms.map((time, f) => `${x(time).toFixed(1)},${(floor - (PLOT - 4) * ((clip.magnitude[f] ?? 0) / highest)).toFixed(1)}`);
  made.append(drawn("polygon", { class: "moved", points: `${x(0)},${floor} ${moved.join(" ")} ${x(span)},${floor}` }));
  made.append(drawn("line", { class: "axis", x1: x(0), x2: x(span), y1: floor, y2: floor }));
  const step = tickStep(span, width);
  for (let time = 0; time <= span; time += step) {
    made.append(drawn("line", { class: "axis", x1: x(time), x2: x(time), y1: floor, y2: floor + 4 }));
    const anchor = time === 0 ? "start" : x(time) > width - 24 ? "end" : "middle";
    const at = time === 0 ? x(0) - 4 : x(time);
    made.append(drawn("text", { x: at, y: floor + LINE + 2, "text-anchor": anchor }, time ? `${time}` : "0 ms"));
  }
  for (const mark of marks) {
    const at = Math.min(Math.max(x(mark.time), MARGIN + 3.5 * mark.name.length), width - MARGIN - 3.5 * mark.name.length);
    made.append(drawn("line", { class: "mark", x1: x(mark.time), x2: x(mark.time), y1: LINE * (mark.row + 1), y2: floor }));
    made.append(drawn("text", { class: "mark-name", x: at, y: LINE * (mark.row + 1) - 3, "text-anchor": "middle" }, mark.name));
  }
  for (const time of clip.kept_ms) {
    made.append(drawn("line", { class: "tick", x1: x(time), x2: x(time), y1: floor - 5, y2: floor + 4 }));
  }
  const weights = clip.temporal_attention;
  if (weights) {
    const most = Math.max(...weights, 1e-6);
    const points = weights.map((weight, t) => [x(clip.kept_ms[clip.spoken[t]]), floor - (PLOT - 4) * (weight / most)]);
    made.append(drawn("polyline", { class: "curve", points: points.map((pair) => pair.map((v) => v.toFixed(1)).join(",")).join(" ") }));
    points.forEach(([cx, cy], t) => {
      const dot = drawn("circle", { class: "dot", cx, cy, r: 2.6 });
      dot.append(drawn("title", {}, `attention ${percent(weights[t])}`));
      made.append(dot);
    });
  }
  const below = floor + 2 * LINE + 7;
  made.append(drawn("rect", { class: "moved", x: x(0) - 4, y: below - 8, width: 9, height: 8 }));
  made.append(drawn("text", { x: x(0) + 9, y: below }, `movement, up to ${highest.toFixed(2)} px`));
  if (weights) {
    const [at, line] = narrow ? [x(0), below + LINE] : [x(0) + LEGEND, below];
    made.append(drawn("circle", { class: "dot", cx: at, cy: line - 4, r: 2.6 }));
    made.append(drawn("text", { x: at + 9, y: line }, `attention at kept frames, up to ${percent(Math.max(...weights))}`));
  }
  const cursor = drawn("line", { class: "cursor", y1: 0, y2: floor + 4 });
  made.append(cursor);
  place.replaceChildren(made);
  place.setAttribute("aria-valuemax", span.toFixed(0));
  return {
    move(time) {
      cursor.setAttribute("x1", x(time).toFixed(1));
      cursor.setAttribute("x2", x(time).toFixed(1));
      place.setAttribute("aria-valuenow", time.toFixed(0));
      place.setAttribute("aria-valuetext", `${time.toFixed(0)} milliseconds`);
    },
    timeAt(clientX) {
      const box = place.getBoundingClientRect();
      const inside = (clientX - box.left) * (width / box.width);
      return Math.min(Math.max((inside - MARGIN) / (width - 2 * MARGIN), 0), 1) * span;
    },
  };
}
