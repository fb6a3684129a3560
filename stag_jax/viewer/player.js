// The face as a film: which frame is on the screen, with flow and attention over it.

import { nearest } from "./panels.js";

const HOLD = 400; // milliseconds for which the last frame stays before the film begins again
const REACH = 0.075; // radius of the strongest region, as a share of the picture's width

// `moved(time, frame)` is called whenever another moment is shown, `changed(playing)` when it starts or stops.
export function makePlayer(canvas, moved, changed) {
  const context = canvas.getContext("2d");
  const shown = { clip: null, frames: null, flow: null, time: 0, held: 0, playing: false, last: 0, due: 0 };
  const wanted = { speed: 0.1, flow: false, weights: "" };

  const still = () => !shown.clip || shown.clip.times_ms.length < 2;

  function frame() {
    let found = 0;
    shown.clip.times_ms.forEach((time, index) => {
      if (time <= shown.time + 1e-6) found = index;
    });
    return found;
  }

  function tile(image, columns, index) {
    const { width, height } = shown.clip;
    const from = [(index % columns) * width, Math.floor(index / columns) * height];
    context.drawImage(image, ...from, width, height, 0, 0, canvas.width, canvas.height);
  }

  // Over colours that mean directions the circles are grey.
  function circles(weights, ink) {
    const { spoken, kept_ms: times, centres, width } = shown.clip;
    const row = weights[nearest(spoken.map((index) => times[index]), shown.time)];
    const most = Math.max(...weights.flat(), 1e-9);
    const scale = canvas.width / width;
    centres.forEach(([x, y], node) => {
      const share = row[node] / most;
      context.beginPath();
      context.arc((x + 0.5) * scale, (y + 0.5) * scale, Math.max(1, REACH * canvas.width * Math.sqrt(share)), 0, 2 * Math.PI);
      context.fillStyle = `rgba(${ink ? "0, 0, 0" : "255, 120, 0"}, ${ink ? 0.05 + 0.3 * share : 0.1 + 0.5 * share})`;
      context.fill();
      context.lineWidth = Math.max(1, canvas.width / 400);
      context.strokeStyle = `rgba(${ink ? "0, 0, 0" : "120, 40, 0"}, ${0.25 + 0.6 * share})`;
      context.stroke();
    });
  }

  function draw() {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    context.clearRect(0, 0, width, height);
    const { clip } = shown;
    if (!clip) return;
    // Pixels of a small flow image are shown as they are.
    context.imageSmoothingEnabled = Boolean(shown.frames);
    context.imageSmoothingQuality = "high";
    const number = shown.frames ? frame() : 0;
    if (shown.frames) tile(shown.frames, clip.columns, number);
    const inColour = wanted.flow || !shown.frames;
    if (shown.flow && inColour) {
      context.globalAlpha = shown.frames ? 0.8 : 1;
      tile(shown.flow, clip.flow_columns, Math.max(0, nearest(clip.kept_ms, shown.time)));
      context.globalAlpha = 1;
    }
    const weights = clip.weights[wanted.weights];
    if (weights?.length) circles(weights, inColour);
    moved(shown.time, number);
  }

  function play(on) {
    const before = shown.playing;
    shown.playing = on && !still();
    cancelAnimationFrame(shown.due);
    if (shown.playing) {
      shown.last = performance.now();
      shown.due = requestAnimationFrame(advance);
    }
    if (before !== shown.playing) changed(shown.playing);
  }

  function advance(now) {
    shown.due = requestAnimationFrame(advance);
    const passed = Math.min(Math.max(now - shown.last, 0), 100);
    shown.last = now;
    if (!shown.clip) return; // the next one is on its way
    const end = shown.clip.times_ms.at(-1);
    if (shown.time >= end) {
      shown.held += passed;
      if (shown.held >= HOLD) seek(0);
    } else {
      shown.time = Math.min(shown.time + passed * wanted.speed, end);
      draw();
    }
  }

  function seek(time) {
    shown.time = time;
    shown.held = 0;
    draw();
  }

  return {
    draw,
    play,
    seek,
    get playing() { return shown.playing; },
    get time() { return shown.time; },
    get still() { return still(); },
    toggle: () => play(!shown.playing),
    // To the frame nearest to a time, or some frames on.
    snap: (time) => { if (!still()) seek(shown.clip.times_ms[nearest(shown.clip.times_ms, time)]); },
    step(count) {
      if (still()) return;
      play(false);
      const { times_ms: times } = shown.clip;
      seek(times[Math.min(Math.max(frame() + count, 0), times.length - 1)]);
    },
    set(values) { Object.assign(wanted, values); draw(); },
    load(clip, frames, flow) {
      const again = shown.playing;
      play(false);
      Object.assign(shown, { clip, frames, flow });
      seek(0);
      play(again);
    },
    // Empties the screen; a film that was playing goes on with the next clip.
    clear() { Object.assign(shown, { clip: null, frames: null, flow: null, time: 0 }); draw(); },
  };
}
