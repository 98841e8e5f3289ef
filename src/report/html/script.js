// What reading does not need: values under the pointer, one choice of x-axis for all charts, copies of commands.
(() => {
  "use strict";
  const INNER = 10000; // The side of a chart's inner drawing.
  const SVG = "http://www.w3.org/2000/svg";

  // A choice of x-axis holds for every chart that has it.
  for (const pick of document.querySelectorAll(".pick")) {
    pick.addEventListener("change", () => {
      const before = pick.closest("figure").getBoundingClientRect().top;
      for (const other of document.querySelectorAll(".pick")) {
        if (other.dataset.axis === pick.dataset.axis) other.checked = true;
      }
      window.scrollBy(0, pick.closest("figure").getBoundingClientRect().top - before);
    });
  }

  // `low high log` of an axis; the value at a fraction of its length, with as many digits as the drawing can tell apart.
  function axis(text) {
    const [low, high, log] = text.split(" ").map(Number);
    const value = (at) => (log ? low * Math.pow(high / low, at) : low + (high - low) * at);
    const decimals = (at) => {
      const step = log ? value(at) * Math.log(high / low) / 5000 : (high - low) / 5000;
      return Math.max(0, Math.min(12, Math.floor(-Math.log10(step))));
    };
    const text_at = (at) => {
      const digits = decimals(at);
      const v = value(at);
      const shown = digits > 6 && v !== 0 ? v.toExponential(3) : v.toFixed(digits);
      return shown.replace("-", "\u2212");
    };
    return { text: text_at };
  }

  // The classes of an element's arm.
  const arm = (e) => e.getAttribute("class").match(/\ba\d( r\d)?/)?.[0];

  // Places of a curve, from its path: absolute first, relative after.
  function places(path) {
    const numbers = path.getAttribute("d").match(/-?\d+/g).map(Number);
    const found = [];
    let x = 0, y = 0;
    for (let i = 0; i + 1 < numbers.length; i += 2) {
      x += numbers[i];
      y += numbers[i + 1];
      found.push({ x: x / INNER, y: 1 - y / INNER });
    }
    return found;
  }

  function reader(chart) {
    const inner = chart.querySelector("svg[viewBox]");
    const curves = Array.from(inner.querySelectorAll("path.line"), (path) => ({
      name: path.dataset.name, arm: arm(path), places: places(path),
    }));
    const x = axis(chart.dataset.x), y = axis(chart.dataset.y);
    const hair = document.createElementNS(SVG, "line");
    hair.setAttribute("class", "hair");
    hair.setAttribute("y2", "100%");
    const box = document.createElement("div");
    box.className = "readout";
    const views = chart.closest(".views");

    function show(event) {
      const matrix = inner.getScreenCTM();
      const at = (event.clientX - matrix.e) / (matrix.a * INNER);
      if (at < -0.03 || at > 1.03 || curves.length === 0) return hide();
      let nearest = curves[0].places[0];
      for (const curve of curves) {
        for (const place of curve.places) {
          if (Math.abs(place.x - at) < Math.abs(nearest.x - at)) nearest = place;
        }
      }
      hair.setAttribute("x1", nearest.x * 100 + "%");
      hair.setAttribute("x2", nearest.x * 100 + "%");
      if (!hair.isConnected) chart.insertBefore(hair, inner);
      box.replaceChildren();
      const head = document.createElement("div");
      head.textContent = chart.dataset.xname + " " + x.text(nearest.x).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
      box.append(head);
      for (const curve of curves) {
        const first = curve.places[0], last = curve.places[curve.places.length - 1];
        if (nearest.x < first.x - 1e-4 || nearest.x > last.x + 1e-4) continue;
        // Curves have places of their own: the nearest one, and no value in between.
        const place = curve.places.reduce((a, b) => (Math.abs(b.x - nearest.x) < Math.abs(a.x - nearest.x) ? b : a));
        const line = document.createElement("div");
        const dot = document.createElement("i");
        dot.className = curve.arm;
        const value = document.createElement("b");
        value.textContent = y.text(place.y);
        line.append(dot, value, " " + curve.name);
        box.append(line);
      }
      if (!box.isConnected) views.append(box);
      const frame = views.getBoundingClientRect();
      const left = matrix.e + nearest.x * matrix.a * INNER - frame.left;
      const beyond = left + 14 + box.offsetWidth > frame.width;
      box.style.left = Math.max(0, beyond ? left - 14 - box.offsetWidth : left + 14) + "px";
      box.style.top = Math.max(0, event.clientY - frame.top - box.offsetHeight - 10) + "px";
    }

    function hide() {
      hair.remove();
      box.remove();
    }

    return { show, hide };
  }

  for (const chart of document.querySelectorAll(".lines .chart")) {
    let read = null;
    const show = (event) => (read ??= reader(chart)).show(event);
    chart.addEventListener("pointermove", show);
    chart.addEventListener("pointerdown", show);
    chart.addEventListener("pointerleave", () => read?.hide());
  }

  // Pointing at a name in a legend brings out that curve.
  for (const name of document.querySelectorAll(".lines .legend li, .lines .direct")) {
    const own = arm(name.querySelector(".line") ?? name);
    const drawn = name.closest(".view").querySelectorAll(".chart .line, .chart .band, .chart .run, .chart .mark, .chart .bar, .chart .sign");
    const dim = (on) => drawn.forEach((e) => e.classList.toggle("dim", on && arm(e) !== own));
    name.addEventListener("pointerenter", () => dim(true));
    name.addEventListener("pointerleave", () => dim(false));
  }

  for (const command of document.querySelectorAll(".command")) {
    const button = document.createElement("button");
    button.className = "copy";
    button.type = "button";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(command.querySelector("pre").textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(command.querySelector("pre"));
        button.textContent = "Selected";
      }
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
    command.append(button);
  }

  // What is folded away on a screen belongs on paper.
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => (d.open = true)));
})();
