"""The page that `interactive.py` fills: plain HTML and WebGL 2, no library, no network.

The title, what there is to know (JSON) and the buffers (base64 of zlib) are put in the places of
`{{title}}`, `{{scene}}` and `{{blob}}`. The camera is parallel, as in the pictures: `R` holds the
directions right, up and towards the eye as rows, lengths are in units of the longest side of the
mesh's box. Under the cursor the mesh is drawn once more into one pixel whose bytes are the bits
of the value and of the place, so what is read there is what the shader had, not a colour.
"""

PAGE = r"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{title}}</title>
<style>
html, body { margin: 0; height: 100%; background: #fff; color: #1b1f24;
  font: 15px "DejaVu Sans", Verdana, system-ui, sans-serif; }
body { display: grid; grid-template-rows: auto 1fr auto; }
header, footer { padding: 12px 20px; }
h1 { font-size: 19px; margin: 0 0 6px; overflow-wrap: anywhere; }
button { font: inherit; border: 1px solid #b9bfc7; background: #fff; color: inherit;
  border-radius: 4px; padding: 3px 10px; margin: 0 6px 4px 0; cursor: pointer; }
button[aria-pressed=true] { background: #1b1f24; color: #fff; }
#spread, footer { color: #69707a; font-size: 13px; }
main { display: grid; grid-template-columns: 1fr auto; min-height: 0; min-width: 0; }
#stage { position: relative; min-width: 0; min-height: 0; overflow: hidden; }
canvas { position: absolute; width: 100%; height: 100%; touch-action: none; cursor: grab; }
canvas:focus-visible { outline: 2px solid #0072b2; outline-offset: -2px; }
#bar { display: flex; align-items: center; padding: 0 20px 0 10px; gap: 8px; }
#bar[hidden] { display: none; }
#strip { position: relative; width: 18px; height: 60vh; max-height: 460px; }
#strip i { position: absolute; left: 0; border: 9px solid transparent; }
#ticks { position: relative; width: 56px; align-self: center; height: 60vh; max-height: 460px;
  font-size: 13px; }
#ticks span { position: absolute; transform: translateY(-50%); white-space: nowrap; }
#ticks span::before { content: "– "; color: #69707a; }
#unit { writing-mode: vertical-rl; transform: rotate(180deg); white-space: nowrap; }
footer { display: flex; gap: 24px; justify-content: space-between; min-height: 18px; }
</style>
</head>
<body>
<header><h1></h1><div id="fields" role="group" aria-label="field"></div><div id="spread"></div>
</header>
<main>
<div id="stage"><canvas tabindex="0" aria-label="mesh"></canvas></div>
<div id="bar"><div id="strip"></div><div id="ticks"></div><div id="unit"></div></div>
</main>
<footer><span id="note"></span><span id="probe" aria-live="polite"></span></footer>
<script type="application/json" id="scene">{{scene}}</script>
<script type="text/plain" id="blob">{{blob}}</script>
<script>
"use strict";
const find = id => document.getElementById(id), S = JSON.parse(find("scene").textContent);
const canvas = document.querySelector("canvas"), HINT =
  "drag: turn · shift-drag: move · wheel: zoom · double click: as at the start";
document.querySelector("h1").textContent = S.title;
find("note").textContent = S.note;
find("probe").textContent = HINT;

const HEAD = "#version 300 es\nprecision highp float;\n";
const VERTEX = HEAD + `
in vec3 place, normal; in float value;
uniform mat3 R; uniform vec3 sides; uniform vec2 pan, zoom; uniform float lift, ball;
out vec3 n, p; out float v;
void main() {
  vec3 q = ((place - 0.5) * sides) * R;
  gl_Position = vec4((q.xy - pan) * zoom, -0.5 * q.z - lift, 1.0);
  gl_PointSize = ball; n = normal * R; p = place; v = value;
}`;
const SHADE = HEAD + `
in vec3 n, p; in float v; out vec4 color;
uniform sampler2D map; uniform vec2 span; uniform vec3 plain, lost; uniform int mode;
uniform bool round_, lit;
void main() {
  vec3 m = normalize(n);
  if (round_) {
    vec2 c = 2.0 * gl_PointCoord - 1.0;
    if (dot(c, c) > 1.0) discard;
    m = vec3(c.x, -c.y, sqrt(1.0 - dot(c, c)));
  }
  float t = clamp((v - span.x) / (span.y - span.x), 0.0, 1.0);
  vec3 c = texture(map, vec2((t * 255.0 + 0.5) / 256.0, 0.5)).rgb;
  c = mode == 0 ? plain : abs(v) < 1e37 ? c : lost;
  if (lit) {
    m = m.z < 0.0 ? -m : m;
    float light = 0.8 * max(0.0, dot(m, normalize(vec3(0.8, 1.0, 0.7))))
                + 0.4 * max(0.0, dot(m, normalize(vec3(-0.4, -0.1, 1.0))));
    c *= 0.62 + 0.4 * light;
  }
  color = vec4(c, 1.0);
}`;
const PROBE = HEAD + `
in vec3 n, p; in float v; uniform bool round_;
layout(location=0) out vec4 a; layout(location=1) out vec4 b;
layout(location=2) out vec4 c; layout(location=3) out vec4 d;
vec4 bits(float f) {
  uint u = floatBitsToUint(f);
  return vec4(u & 255u, u >> 8 & 255u, u >> 16 & 255u, u >> 24) / 255.0;
}
void main() {
  if (round_ && length(2.0 * gl_PointCoord - 1.0) > 1.0) discard;
  a = bits(v); b = bits(p.x); c = bits(p.y); d = bits(p.z);
}`;

async function start() {
  const gl = canvas.getContext("webgl2", {antialias: true, preserveDrawingBuffer: true});
  if (!gl) throw Error("this browser has no WebGL 2");
  const text = atob(find("blob").textContent), packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const raw = await new Response(stream).arrayBuffer();

  const program = (...sources) => {
    const made = gl.createProgram();
    [gl.VERTEX_SHADER, gl.FRAGMENT_SHADER].forEach((kind, i) => {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, sources[i]); gl.compileShader(shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS))
        throw Error(gl.getShaderInfoLog(shader));
      gl.attachShader(made, shader);
    });
    ["place", "normal", "value"].forEach((name, i) => gl.bindAttribLocation(made, i, name));
    gl.linkProgram(made);
    const at = {};
    for (let i = gl.getProgramParameter(made, gl.ACTIVE_UNIFORMS); i--;) {
      const name = gl.getActiveUniform(made, i).name;
      at[name] = gl.getUniformLocation(made, name);
    }
    return {made, at};
  };
  const shade = program(VERTEX, SHADE), probe = program(VERTEX, PROBE);
  const upload = (name, target = gl.ARRAY_BUFFER) => {
    const [offset, length] = S.blocks[name], buffer = gl.createBuffer();
    gl.bindBuffer(target, buffer);
    gl.bufferData(target, new Uint8Array(raw, offset, length), gl.STATIC_DRAW);
    return buffer;
  };
  const mesh = {
    place: upload("place"), normal: upload("normal"),
    index: upload("index", gl.ELEMENT_ARRAY_BUFFER),
    values: S.fields.map((_, i) => upload("v" + i)),
    mode: {triangles: gl.TRIANGLES, lines: gl.LINES, points: gl.POINTS}[S.kind],
  };
  const outline = upload("outline"), maps = S.fields.map(field => {
    const texture = gl.createTexture();
    const bytes = Uint8Array.from(atob(field.map), c => c.charCodeAt(0));
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, bytes);
    for (const key of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER])
      gl.texParameteri(gl.TEXTURE_2D, key, gl.NEAREST);
    for (const key of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T])
      gl.texParameteri(gl.TEXTURE_2D, key, gl.CLAMP_TO_EDGE);
    return {texture, bytes};
  });
  const pixel = gl.createFramebuffer();  // 1 x 1, four bytes each of value, x, y, z
  gl.bindFramebuffer(gl.FRAMEBUFFER, pixel);
  const parts = [0, 1, 2, 3].map(i => gl.COLOR_ATTACHMENT0 + i);
  for (const part of [...parts, gl.DEPTH_ATTACHMENT]) {
    const room = gl.createRenderbuffer();
    gl.bindRenderbuffer(gl.RENDERBUFFER, room);
    gl.renderbufferStorage(
      gl.RENDERBUFFER, part === gl.DEPTH_ATTACHMENT ? gl.DEPTH_COMPONENT24 : gl.RGBA8, 1, 1);
    gl.framebufferRenderbuffer(gl.FRAMEBUFFER, part, gl.RENDERBUFFER, room);
  }
  gl.drawBuffers(parts);
  gl.bindFramebuffer(gl.FRAMEBUFFER, null);

  let shown = 0, R, pan, zoom;
  const reset = () => { R = S.R.map(row => [...row]); pan = [...S.centre]; zoom = 1; draw(); };
  const perUnit = () => zoom * Math.min(canvas.width / S.seen[0], canvas.height / S.seen[1]);
  const feed = (slot, buffer, size, type, normed, stride) => {
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(slot);
    gl.vertexAttribPointer(slot, size, type, normed, stride, 0);
  };
  const paint = ({made, at}) => {
    const k = perUnit();
    gl.useProgram(made);
    gl.enable(gl.DEPTH_TEST);
    gl.uniformMatrix3fv(at.R, false, R.flat());
    gl.uniform3fv(at.sides, S.sides);
    gl.uniform2fv(at.pan, pan);
    gl.uniform2f(at.zoom, 2 * k / canvas.width, 2 * k / canvas.height);
    gl.uniform1f(at.lift, 0);
    gl.uniform1f(at.ball, Math.max(2, S.ball * k));
    gl.uniform1i(at.round_, S.kind === "points");
    gl.uniform1i(at.lit, S.lit);
    gl.uniform1i(at.mode, S.fields.length ? 1 : 0);
    gl.uniform3fv(at.plain, S.plain);
    gl.uniform3fv(at.lost, S.lost);
    feed(0, mesh.place, 3, gl.UNSIGNED_SHORT, true, 6);
    feed(1, mesh.normal, 3, gl.BYTE, true, 4);
    gl.disableVertexAttribArray(2);
    if (S.fields.length) {
      feed(2, mesh.values[shown], 1, gl.FLOAT, false, 4);
      gl.uniform2fv(at.span, S.fields[shown].span);
      gl.bindTexture(gl.TEXTURE_2D, maps[shown].texture);
    }
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, mesh.index);
    gl.drawElements(mesh.mode, S.count, gl.UNSIGNED_INT, 0);
  };
  const draw = () => {
    const ratio = window.devicePixelRatio || 1;
    const wide = Math.round(canvas.clientWidth * ratio);
    const high = Math.round(canvas.clientHeight * ratio);
    if (canvas.width !== wide || canvas.height !== high)
      [canvas.width, canvas.height] = [wide, high];
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(1, 1, 1, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    paint(shade);
    if (S.outlines) {
      const at = shade.at;
      gl.uniform1i(at.mode, 0); gl.uniform1i(at.lit, 0); gl.uniform1f(at.lift, 5e-4);
      gl.uniform3fv(at.plain, S.ink);
      gl.disableVertexAttribArray(1); gl.disableVertexAttribArray(2);
      feed(0, outline, 3, gl.UNSIGNED_SHORT, true, 6);
      gl.drawArrays(gl.LINES, 0, S.outlines);
    }
  };
  const digits = x => Number(x.toPrecision(5)).toString().replace("e+", "e").replace(/-/g, "−");
  const look = event => {
    const box = canvas.getBoundingClientRect(), ratio = canvas.width / box.width;
    const x = Math.floor((event.clientX - box.left) * ratio);
    const y = canvas.height - 1 - Math.floor((event.clientY - box.top) * ratio);
    gl.bindFramebuffer(gl.FRAMEBUFFER, pixel);
    gl.viewport(-x, -y, canvas.width, canvas.height);
    parts.forEach((_, i) => gl.clearBufferfv(gl.COLOR, i, [1, 1, 1, 1]));
    gl.clear(gl.DEPTH_BUFFER_BIT);
    paint(probe);
    const bytes = new Uint8Array(16);
    parts.forEach((part, i) => {
      gl.readBuffer(part);
      gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, bytes, 4 * i);
    });
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    const [value, ...share] = new Float32Array(bytes.buffer);
    if (Number.isNaN(share[0])) { find("probe").textContent = HINT; return; }
    const at = share.map((s, i) => digits(S.low[i] + s * (S.high[i] - S.low[i]))).join(", ");
    const field = S.fields[shown], unit = field && field.unit ? " " + field.unit : "";
    const said = Math.abs(value) < 1e37 ? digits(value) + unit : "not a number";
    find("probe").textContent = (field ? said + " " : "") + "at (" + at + ")";
  };
  let hover = null, waiting = false;
  const peek = () => {  // at most once a frame
    if (!waiting) requestAnimationFrame(() => { waiting = false; if (hover) look(hover); });
    waiting = true;
  };
  const choose = i => {
    shown = i;
    [...find("fields").children].forEach((b, j) => b.setAttribute("aria-pressed", j === i));
    const field = S.fields[i], bytes = maps[i].bytes;
    const css = k => "rgb(" + bytes.slice(4 * k, 4 * k + 3).join() + ")";
    find("spread").textContent = field.spread;
    find("unit").textContent = field.bar;
    const stops = Array.from({length: 64}, (_, k) => css(Math.round(k * 255 / 63)));
    const strip = find("strip");
    strip.style.background = "linear-gradient(to top," + stops.join() + ")";
    strip.replaceChildren();
    for (const [beyond, side, k] of [[field.below, "top", 0], [field.above, "bottom", 255]]) {
      const end = document.createElement("i");  // a pointed end: values go beyond
      end.style[side] = "100%";
      end.style["border-" + side + "-color"] = beyond ? css(k) : "transparent";
      strip.append(end);
    }
    find("ticks").replaceChildren(...field.ticks.map(([share, text]) => {
      const tick = document.createElement("span");
      tick.style.top = 100 * (1 - share) + "%"; tick.textContent = text;
      return tick;
    }));
    draw();
    peek();
  };

  const turn = (dx, dy) => {  // what faces the eye goes right by dx and up by dy
    const spin = (a, b, angle) => {
      const c = Math.cos(angle), s = Math.sin(angle), [p, q] = [R[a], R[b]];
      R[a] = p.map((v, i) => c * v + s * q[i]); R[b] = q.map((v, i) => c * v - s * p[i]);
    };
    spin(0, 2, dx); spin(1, 2, dy);
    draw();
  };
  const held = new Map();
  canvas.addEventListener("pointerdown", e => {
    held.set(e.pointerId, e); try { canvas.setPointerCapture(e.pointerId); } catch {} });
  for (const end of ["pointerup", "pointercancel"])
    canvas.addEventListener(end, e => held.delete(e.pointerId));
  canvas.addEventListener("pointerleave", () => {
    hover = null; find("probe").textContent = HINT; });
  canvas.addEventListener("pointermove", e => {
    const before = held.get(e.pointerId), ratio = canvas.width / canvas.clientWidth;
    if (!before) {
      hover = e;
      peek();
      return;
    }
    const dx = e.clientX - before.clientX, dy = e.clientY - before.clientY;
    if (held.size > 1) {
      const other = [...held.values()].find(o => o.pointerId !== e.pointerId);
      const far = o => Math.hypot(o.clientX - other.clientX, o.clientY - other.clientY) || 1;
      zoom *= far(e) / far(before); draw();
    } else if (e.shiftKey || e.buttons & 6) {
      pan = [pan[0] - dx * ratio / perUnit(), pan[1] + dy * ratio / perUnit()]; draw();
    } else turn(dx * 0.008, -dy * 0.008);
    held.set(e.pointerId, e);
  });
  canvas.addEventListener("contextmenu", e => e.preventDefault());
  canvas.addEventListener("dblclick", reset);
  canvas.addEventListener("wheel", e => {
    e.preventDefault();
    const box = canvas.getBoundingClientRect(), ratio = canvas.width / box.width, k = perUnit();
    const away = [(e.clientX - box.left) * ratio - canvas.width / 2,
                  canvas.height / 2 - (e.clientY - box.top) * ratio];
    zoom *= Math.exp(-e.deltaY * (e.deltaMode ? 0.05 : 0.0015));
    zoom = Math.min(1e4, Math.max(0.05, zoom));
    pan = pan.map((v, i) => v + away[i] * (1 / k - 1 / perUnit()));  // what is under it stays
    draw();
  }, {passive: false});
  canvas.addEventListener("keydown", e => {
    const steps = {Left: [-0.1, 0], Right: [0.1, 0], Up: [0, 0.1], Down: [0, -0.1]};
    const step = steps[e.key.replace("Arrow", "")];
    if (step) { e.preventDefault(); turn(...step); }
    if (e.key === "+" || e.key === "-") { zoom *= e.key === "+" ? 1.1 : 1 / 1.1; draw(); }
  });
  reset();
  if (S.fields.length > 1) S.fields.forEach((field, i) => {
    const button = document.createElement("button");
    button.textContent = field.name;
    button.addEventListener("click", () => choose(i));
    find("fields").append(button);
  });
  find("bar").hidden = !S.fields.length;
  if (S.fields.length) choose(0);
  new ResizeObserver(draw).observe(canvas);
}
start().catch(error => { find("probe").textContent = "cannot draw: " + error.message; });
</script>
</body>
</html>
"""
