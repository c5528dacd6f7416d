
"use strict";
(() => {
  const find = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const by = (id) => document.getElementById(id);
  const frames = find(".frame");
  const nodes = new Map(find(".node").map((node) => [node.dataset.id, node]));
  const edges = find(".edge");
  const words = (text) => (text ? text.split(" ") : []);
  const step = (id) => Number(id.split(".")[0]);
  let now = 0;
  let all = false;

  // --- which frame is shown ---

  function show(k, moved) {
    now = Math.max(0, Math.min(frames.length - 1, k));
    const frame = frames[now];
    frames.forEach((other) => other.classList.toggle("now", other === frame));
    by("slider").value = now;
    by("first").disabled = by("previous").disabled = now === 0;
    by("next").disabled = now === frames.length - 1;
    by("now").textContent = frame.dataset.title;
    light(frame);
    bringIntoView(frame);
    touch(null);
    if (!moved) return;
    history.replaceState(null, "", "#" + frame.id);
    if (all) frame.scrollIntoView({ block: "start" });
  }

  function showAll(wanted) {
    all = wanted;
    by("all").setAttribute("aria-pressed", String(all));
    document.documentElement.classList.toggle("stepping", !all);
  }

  function fromAddress() {
    const k = frames.findIndex((frame) => "#" + frame.id === location.hash);
    show(Math.max(k, 0), false);
  }

  // --- what flows in it ---

  function light(frame) {
    const { way = "", t } = frame.dataset;
    const at = t === undefined ? null : Number(t);
    const isBack = now > frames.findLastIndex((other) => other.dataset.way === "forward");
    const afterAll = isBack && at === null && frame.id !== "ready";
    const own = new Set();
    const flows = new Set();
    for (const line of way ? find(".line", frame) : []) {
      for (const id of words(line.dataset.node)) {
        own.add(id);
        for (const read of words(line.dataset.reads)) {
          flows.add(way === "forward" ? read + ">" + id : id + ">" + read);
        }
      }
    }
    for (const [id, node] of nodes) {
      const isInput = way === "forward" && step(id) === at;
      color(node, "now", own.has(id) || isInput, way);
      const isKnown = isBack || node.classList.contains("given") || (at !== null && step(id) <= at);
      node.classList.toggle("later", !isKnown);
      const isReached = afterAll || (isBack && at !== null && step(id) >= at);
      node.classList.toggle("back", isReached && node.querySelector(".gradient") !== null);
    }
    for (const edge of edges) {
      const isLit = flows.has(edge.dataset.a + ">" + edge.dataset.b);
      color(edge, "flows", isLit, way);
      if (isLit) edge.parentNode.append(edge); // above the others
    }
  }

  function color(element, name, isOn, way) {
    element.classList.toggle(name, isOn);
    element.classList.toggle("forward", isOn && way === "forward");
    element.classList.toggle("backward", isOn && way === "backward");
  }

  function bringIntoView(frame) {
    const drawing = by("drawing");
    const here = drawing ? find(`.node[data-t="${frame.dataset.t ?? -1}"]`) : [];
    if (here.length === 0) return;
    const boxes = here.map((node) => node.getBoundingClientRect());
    const left = Math.min(...boxes.map((box) => box.left));
    const right = Math.max(...boxes.map((box) => box.right));
    const outer = drawing.getBoundingClientRect();
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const far = (left + right - outer.left - outer.right) / 2;
    drawing.scrollBy({ left: far, behavior: calm ? "instant" : "smooth" });
  }

  // --- what is touched ---

  function touch(own, others = [], isEdge = () => false) {
    const drawing = document.querySelector(".diagram");
    if (drawing === null) return;
    const near = new Set(own === null ? [] : [...own, ...others]);
    drawing.classList.toggle("touching", near.size > 0);
    for (const [id, node] of nodes) {
      node.classList.toggle("touched", near.has(id));
      node.classList.toggle("own", own !== null && own.includes(id));
    }
    for (const edge of edges) {
      edge.classList.toggle("touched", near.size > 0 && isEdge(edge.dataset.a, edge.dataset.b));
    }
    for (const line of find(".line")) {
      const id = line.dataset.node;
      line.classList.toggle("lit", own !== null && id !== undefined && own.includes(id));
    }
  }

  function touchLine(line) {
    const own = words(line.dataset.node);
    const reads = words(line.dataset.reads);
    const between = (a, b) =>
      (own.includes(a) && reads.includes(b)) || (own.includes(b) && reads.includes(a));
    touch(own, reads, between);
    line.classList.add("lit");
  }

  function touchNode(node) {
    const id = node.dataset.id;
    const near = edges.filter((e) => e.dataset.a === id || e.dataset.b === id);
    touch([id], near.flatMap((e) => [e.dataset.a, e.dataset.b]), (a, b) => a === id || b === id);
  }

  function goTo(node) {
    const id = node.dataset.id;
    const lines = find(".line").filter((line) => line.dataset.node === id);
    const here = lines.find((line) => frames[now].contains(line)) ?? lines[0];
    if (here === undefined) return;
    show(frames.indexOf(here.closest(".frame")), true);
    here.focus();
    here.scrollIntoView({ block: "nearest" });
  }

  function listen(element, touched) {
    element.tabIndex = 0;
    element.addEventListener("pointerenter", () => touched(element));
    element.addEventListener("focus", () => touched(element));
    element.addEventListener("pointerleave", () => touch(null));
    element.addEventListener("blur", () => touch(null));
  }

  // --- start ---

  find(".line").forEach((line) => listen(line, touchLine));
  for (const node of nodes.values()) {
    listen(node, touchNode);
    node.setAttribute("role", "button");
    node.addEventListener("click", () => goTo(node));
    node.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        goTo(node);
      }
    });
  }
  by("slider").max = frames.length - 1;
  by("slider").addEventListener("input", (event) => show(Number(event.target.value), true));
  by("first").addEventListener("click", () => show(0, true));
  by("previous").addEventListener("click", () => show(now - 1, true));
  by("next").addEventListener("click", () => show(now + 1, true));
  by("all").addEventListener("click", () => showAll(!all));
  addEventListener("hashchange", fromAddress);
  addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.id === "slider") return;
    const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (way === undefined) return;
    event.preventDefault();
    show(now + way, true);
  });
  by("stepper").hidden = false;
  showAll(false);
  fromAddress();
})();
