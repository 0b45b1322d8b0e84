"use strict";
// Shows the stored map of a report: values under the pointer, zoom, profiles. No network, no libraries.
for (const box of document.querySelectorAll(".explorer")) explore(box);

async function explore(box) {
  const part = (name) => box.querySelector("." + name);
  const about = JSON.parse(part("about").textContent);
  // the page is painted first; a tab in the background paints nothing
  await new Promise((go) => { requestAnimationFrame(() => setTimeout(go)); setTimeout(go, 300); });
  let steps, valid;
  try {
    [steps, valid] = await unpacked(part("packed").textContent.trim(), about.rows, about.columns);
  } catch (failure) {
    return; // an old browser: the picture below stays
  }
  document.documentElement.classList.add("live");
  const canvas = part("map"), chart = part("profile"), readout = part("readout"), form = part("form");
  const colours = bytes(about.colours), count = about.rows * about.columns;
  const decimals = Math.max(0, Math.min(6, Math.ceil(-Math.log10(about.quantum_nm * about.per_nm))));
  const perColumn = about.per_column, perRow = about.per_row;
  const margin = { left: 58, top: 8, right: 92, bottom: 40 };
  let heights = new Float32Array(count), range = [0, 1], picture, view, line = null, lining = false, drag = null, printing = false;

  function remove() {
    const chosen = about.forms.find((one) => String(one.degree) === form.value);
    const terms = chosen ? chosen.coefficients_nm : [];
    for (let row = 0, at = 0; row < about.rows; row++) {
      const y = (2 * row + 1) / about.rows - 1;
      for (let column = 0; column < about.columns; column++, at++) {
        if (!valid(at)) { heights[at] = NaN; continue; }
        const x = (2 * column + 1) / about.columns - 1;
        let smooth = 0;
        for (let n = 0, i = 0; i < terms.length; n++)
          for (let k = 0; k <= n; k++, i++) smooth += terms[i] * x ** (n - k) * y ** k;
        heights[at] = about.low_nm + about.quantum_nm * steps[at] - smooth;
      }
    }
    const sample = [];
    for (let at = 0, every = Math.max(1, Math.floor(count / 50000)); at < count; at += every)
      if (valid(at)) sample.push(heights[at]);
    sample.sort((a, b) => a - b);
    const pick = (share) => sample[Math.min(sample.length - 1, Math.floor(share * sample.length))];
    range = sample.length ? [pick(0.002), pick(0.998)] : [0, 1];
    if (!(range[1] > range[0])) range = [range[0] - 0.5, range[0] + 0.5];
    paint();
  }

  function paint() {
    picture = document.createElement("canvas");
    picture.width = about.columns; picture.height = about.rows;
    const context = picture.getContext("2d"), image = context.createImageData(about.columns, about.rows);
    for (let at = 0; at < count; at++) {
      const share = (heights[at] - range[0]) / (range[1] - range[0]), to = 4 * at;
      if (share !== share) { image.data.set([141, 150, 160, 110], to); continue; }
      const from = 3 * Math.max(0, Math.min(255, Math.floor(256 * share)));
      image.data[to] = colours[from]; image.data[to + 1] = colours[from + 1]; image.data[to + 2] = colours[from + 2];
      image.data[to + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }

  // view: the stored pixel at the left upper corner and screen pixels per unit of length, the same along both axes
  const room = () => ({ width: canvas.clientWidth - margin.left - margin.right, height: canvas.clientHeight - margin.top - margin.bottom });
  function whole() {
    const { width, height } = room(), scale = Math.min(width / about.size[1], height / about.size[0]);
    view = { x: (about.size[1] - width / scale) / 2, y: 0, scale };
    if (height / scale > about.size[0]) view.y = (about.size[0] - height / scale) / 2;
  }
  const across = (x) => margin.left + (x - view.x) * view.scale, down = (y) => margin.top + (y - view.y) * view.scale;
  const place = (event) => {
    const edge = canvas.getBoundingClientRect();
    return { x: view.x + (event.clientX - edge.left - margin.left) / view.scale, y: view.y + (event.clientY - edge.top - margin.top) / view.scale };
  };
  const pixel = (at) => {
    const column = Math.floor(at.x / perColumn), row = Math.floor(at.y / perRow);
    return column >= 0 && row >= 0 && column < about.columns && row < about.rows ? row * about.columns + column : -1;
  };
  const told = (height) => height === height ? (height * about.per_nm).toFixed(decimals).replace("-", "−") + " " + about.unit : "no value";
  const length = (value) => Number(value.toPrecision(4)) + " " + about.lateral;

  function zoom(by, at) {
    const least = Math.min(room().width / about.size[1], room().height / about.size[0]);
    const scale = Math.max(least, Math.min(40 / Math.min(perColumn, perRow), view.scale * by));
    view = { x: at.x - (at.x - view.x) * view.scale / scale, y: at.y - (at.y - view.y) * view.scale / scale, scale };
    draw();
  }
  const middle = () => ({ x: view.x + room().width / view.scale / 2, y: view.y + room().height / view.scale / 2 });

  function sharp(target) {
    const ratio = window.devicePixelRatio || 1, context = target.getContext("2d");
    const width = Math.round(target.clientWidth * ratio), height = Math.round(target.clientHeight * ratio);
    if (target.width !== width || target.height !== height) { target.width = width; target.height = height; }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, target.clientWidth, target.clientHeight);
    context.font = "11.5px system-ui, sans-serif";
    const style = getComputedStyle(document.documentElement), ink = (name) => style.getPropertyValue(name).trim();
    return { context, ink: printing ? "#000" : ink("--ink"), rule: printing ? "#ccc" : ink("--rule"), accent: printing ? "#1f66ad" : ink("--accent") };
  }

  function ticks(low, high, most) {
    const raw = (high - low) / most, power = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].find((n) => n * power >= raw) * power;
    const found = [];
    for (let n = Math.ceil(low / step); n * step <= high; n++) found.push(Number((n * step).toPrecision(12)));
    return found;
  }
  const written = (value) => String(value).replace("-", "−");

  function draw() {
    const { context, ink, accent } = sharp(canvas), { width, height } = room();
    context.save();
    context.beginPath(); context.rect(margin.left, margin.top, width, height); context.clip();
    context.imageSmoothingEnabled = view.scale * perColumn < 1;
    context.drawImage(picture, across(0), down(0), about.columns * perColumn * view.scale, about.rows * perRow * view.scale);
    if (line) {
      context.lineWidth = 3; context.strokeStyle = "#fff"; stroke(context);
      context.lineWidth = 1.5; context.strokeStyle = "#d6336c"; stroke(context);
    }
    context.restore();
    context.fillStyle = ink; context.strokeStyle = ink; context.lineWidth = 0.7;
    context.textAlign = "center";
    const left = Math.max(0, view.x), right = Math.min(about.size[1], view.x + width / view.scale);
    for (const x of ticks(left, right, 7)) context.fillText(written(x), across(x), margin.top + height + 16);
    context.fillText("x, y / " + about.lateral, margin.left + width / 2, margin.top + height + 33);
    context.textAlign = "right";
    const top = Math.max(0, view.y), bottom = Math.min(about.size[0], view.y + height / view.scale);
    for (const y of ticks(top, bottom, 6)) context.fillText(written(y), margin.left - 6, down(y) + 4);
    const bar = { x: margin.left + width + 16, width: 14 };
    for (let i = 0; i < 256; i++) {
      context.fillStyle = `rgb(${colours[3 * i]},${colours[3 * i + 1]},${colours[3 * i + 2]})`;
      context.fillRect(bar.x, margin.top + height * (1 - (i + 1) / 256), bar.width, height / 256 + 1);
    }
    context.fillStyle = ink; context.textAlign = "left";
    const low = range[0] * about.per_nm, high = range[1] * about.per_nm;
    for (const value of ticks(low, high, 6))
      context.fillText(written(value), bar.x + bar.width + 5, margin.top + height * (1 - (value - low) / (high - low)) + 4);
    context.fillText(about.unit, bar.x, margin.top + height + 16);
    profile(accent);
  }
  function stroke(context) {
    context.beginPath(); context.moveTo(across(line.from.x), down(line.from.y)); context.lineTo(across(line.to.x), down(line.to.y)); context.stroke();
  }

  function along() {
    const span = Math.hypot(line.to.x - line.from.x, line.to.y - line.from.y);
    const number = Math.max(2, Math.min(4000, Math.round(Math.hypot((line.to.x - line.from.x) / perColumn, (line.to.y - line.from.y) / perRow)) + 1));
    const values = [];
    for (let n = 0; n < number; n++) {
      const share = n / (number - 1);
      const at = pixel({ x: line.from.x + share * (line.to.x - line.from.x), y: line.from.y + share * (line.to.y - line.from.y) });
      values.push([share * span, at < 0 ? NaN : heights[at]]);
    }
    return values;
  }
  function profile() {
    chart.hidden = !line;
    part("about-line").hidden = !line;
    if (!line) return;
    const values = along(), finite = values.filter((one) => one[1] === one[1]).map((one) => one[1] * about.per_nm);
    const { context, ink, rule, accent } = sharp(chart), width = chart.clientWidth - 74, height = chart.clientHeight - 44;
    if (!finite.length) return;
    let low = Math.min(...finite), high = Math.max(...finite);
    const air = 0.06 * (high - low) || 0.5, span = values[values.length - 1][0] || 1;
    low -= air; high += air;
    const x = (value) => 58 + width * value / span, y = (value) => 8 + height * (high - value) / (high - low);
    context.fillStyle = ink; context.strokeStyle = rule; context.lineWidth = 0.6;
    context.textAlign = "right";
    for (const value of ticks(low, high, 5)) {
      context.beginPath(); context.moveTo(58, y(value)); context.lineTo(58 + width, y(value)); context.stroke();
      context.fillText(written(value), 52, y(value) + 4);
    }
    context.textAlign = "center";
    for (const value of ticks(0, span, 7)) context.fillText(written(value), x(value), 8 + height + 16);
    context.fillText(`along the line / ${about.lateral}, height / ${about.unit}`, 58 + width / 2, 8 + height + 32);
    context.strokeStyle = accent; context.lineWidth = 1.2; context.beginPath();
    let pen = false;
    for (const [at, value] of values) {
      if (value !== value) { pen = false; continue; }
      context[pen ? "lineTo" : "moveTo"](x(at), y(value * about.per_nm)); pen = true;
    }
    context.stroke();
    const measured = values.filter((one) => one[1] === one[1]), tenth = Math.max(1, Math.floor(measured.length / 10));
    const mean = (some) => some.reduce((sum, one) => sum + one[1], 0) / some.length;
    part("about-line").textContent = `Profile: ${length(span)} long, ${told((high - low - 2 * air) / about.per_nm)} from lowest to highest; last tenth less first ` +
      told(mean(measured.slice(-tenth)) - mean(measured.slice(0, tenth)));
  }

  function show(event) {
    const at = place(event), index = pixel(at);
    readout.textContent = index < 0 ? "" : `${told(heights[index])} at x ${length(at.x)}, y ${length(at.y)}` +
      (about.block[0] > 1 ? ` (mean of ${about.block[0]} × ${about.block[1]} pixels)` : "");
  }
  canvas.addEventListener("pointermove", (event) => {
    show(event);
    if (!drag) return;
    if (lining) line = { from: drag.from, to: place(event) };
    else { const now = place(event); view = { ...view, x: view.x + drag.from.x - now.x, y: view.y + drag.from.y - now.y }; }
    draw();
  });
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); drag = { from: place(event) }; });
  canvas.addEventListener("pointerup", () => { drag = null; });
  canvas.addEventListener("pointerleave", () => { if (!drag) readout.textContent = ""; });
  canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(2 ** (-event.deltaY / 300), place(event)); }, { passive: false });
  canvas.addEventListener("dblclick", () => { whole(); draw(); });
  canvas.addEventListener("keydown", (event) => {
    const step = 60 / view.scale, moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.key in moves) { view = { ...view, x: view.x + moves[event.key][0], y: view.y + moves[event.key][1] }; draw(); }
    else if (event.key === "+") zoom(1.5, middle());
    else if (event.key === "-") zoom(1 / 1.5, middle());
    else if (event.key === "0") { whole(); draw(); }
    else if (event.key === "Escape") { line = null; draw(); }
    else return;
    event.preventDefault();
  });
  const press = {
    in: () => zoom(1.5, middle()),
    out: () => zoom(1 / 1.5, middle()),
    whole: () => { whole(); draw(); },
    line: (button) => { lining = !lining; button.setAttribute("aria-pressed", String(lining)); canvas.classList.toggle("lining", lining); if (!lining) { line = null; draw(); } },
  };
  for (const button of box.querySelectorAll("button")) button.addEventListener("click", () => press[button.value](button));
  form.addEventListener("change", () => { remove(); draw(); });
  window.addEventListener("resize", () => { whole(); draw(); });
  window.addEventListener("beforeprint", () => { printing = true; draw(); });
  window.addEventListener("afterprint", () => { printing = false; draw(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  box.explored = { value: (row, column) => heights[row * about.columns + column], at: (row, column) => [across((column + 0.5) * perColumn), down((row + 0.5) * perRow)], about, view: () => view };
  remove(); whole(); draw();
}

function bytes(text) { return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)); }

async function unpacked(text, rows, columns) {
  const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const plain = new Uint8Array(await new Response(stream).arrayBuffer()), count = rows * columns, steps = new Int32Array(count);
  for (let row = 0, at = 0; row < rows; row++) {
    let now = row ? steps[at - columns] : 0;
    for (let column = 0; column < columns; column++, at++) {
      const folded = plain[at] | plain[count + at] << 8 | plain[2 * count + at] << 16 | plain[3 * count + at] << 24;
      now += (folded >>> 1) ^ -(folded & 1);
      steps[at] = now;
    }
  }
  const mask = plain.subarray(4 * count);
  return [steps, (at) => (mask[at >> 3] >> (7 - (at & 7)) & 1) === 1];
}
