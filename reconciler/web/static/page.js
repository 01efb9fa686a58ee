// The page works without this. With it: live without reload, `/` searches, ages stay true, a job's log goes on.
// No text is ever made into markup here: documents come from the server, parsed by the browser, and parts are moved over.

const began = performance.now();
const server = Date.parse(document.body.dataset.now ?? "");
const now = () => server + performance.now() - began;
const element = (id) => document.getElementById(id);
let shown = Number.isNaN(server) ? null : 0; // the number of the last change that is on the page; null: a page that is not live
let fetching = false;
let again = false;

// --- one document's parts in place of another's

function load(address) {
  return new Promise((done, failed) => {
    const request = new XMLHttpRequest();
    request.open("GET", address);
    request.setRequestHeader("accept", "text/html");
    request.responseType = "document";
    request.timeout = 20000;
    request.onload = () => (request.status === 200 && request.response ? done(request.response) : failed(request.status));
    request.onerror = request.ontimeout = () => failed(0);
    request.send();
  });
}

// What stands in a row, its ages left out: they grow, and that is no news.
function without(row) {
  const copy = row?.cloneNode(true);
  copy?.querySelectorAll("time").forEach((time) => time.remove());
  return copy?.textContent;
}

function rows(old, fresh, flash) {
  const kept = [...fresh.children].map((row) => {
    const before = row.id && element(row.id);
    if (before && before.isEqualNode(row)) return before;
    const adopted = document.adoptNode(row);
    if (flash && without(before) !== without(row)) adopted.classList.add("changed");
    return adopted;
  });
  old.replaceChildren(...kept);
}

function take(fresh, flash) {
  const focused = document.activeElement?.id;
  for (const old of document.querySelectorAll("[data-live]")) {
    const other = fresh.getElementById(old.id);
    if (!other || old.isEqualNode(other)) continue;
    const says = "say" in old.dataset && old.textContent.trim() !== other.textContent.trim();
    if ("rows" in old.dataset) rows(old, other, flash);
    else old.replaceWith(document.adoptNode(other));
    if (says) say(element(old.id).textContent);
  }
  document.title = fresh.title;
  if (focused && document.activeElement?.id !== focused) element(focused)?.focus({ preventScroll: true });
  ages();
}

function say(text) {
  element("said").textContent = text.replace(/\s+/g, " ").trim();
}

async function refresh(flash = true) {
  if (fetching) {
    again = true;
    return;
  }
  fetching = true;
  try {
    take(await load(location.href), flash);
  } catch (status) {
    alive(false, status === 401 ? "logged out: reload the page" : "not live");
  }
  fetching = false;
  if (again) {
    again = false;
    refresh(flash);
  }
}

// --- live: a stream says that something has changed; a hidden page lets go of its place

let stream = null;

function alive(yes, words = "not live") {
  element("alive").hidden = false;
  element("alive").classList.toggle("away", !yes);
  element("alive-words").textContent = yes ? "live" : words;
}

function listen() {
  if (stream || document.hidden || shown === null) return;
  stream = new EventSource("/stream");
  stream.onopen = () => alive(true);
  stream.addEventListener("changed", (event) => {
    if (event.data === shown) return;
    const first = shown === 0;
    shown = event.data;
    if (!first) refresh();
  });
  stream.onerror = () => {
    alive(false);
    if (stream?.readyState === EventSource.CLOSED) {
      stream = null;
      setTimeout(listen, 10000);
    }
  };
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    stream?.close();
    stream = null;
  } else {
    listen();
  }
});
addEventListener("pagehide", () => {
  stream?.close();
  stream = null;
});
addEventListener("pageshow", listen);

// --- ages

function ages() {
  for (const time of document.querySelectorAll("time[title]")) {
    const seconds = (now() - Date.parse(time.dateTime)) / 1000;
    const size = Math.abs(seconds);
    const [unit, step] = size >= 86400 ? ["d", 86400] : size >= 3600 ? ["h", 3600] : size >= 60 ? ["min", 60] : ["s", 1];
    const words = `${Math.floor(size / step)} ${unit}`;
    time.textContent = seconds < 0 ? `in ${words}` : `${words} ago`;
  }
}

// --- search as one types; the address follows, so that it can be shared

const form = element("search");
let typing = 0;

async function search() {
  const asked = new URLSearchParams(new FormData(form));
  for (const [name, value] of [...asked]) if (!value) asked.delete(name);
  const address = asked.size ? `/?${asked}` : "/";
  history.replaceState(null, "", address);
  await refresh(false);
}

form?.addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(typing);
  search();
});
form?.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(search, 200);
});

document.addEventListener("keydown", (event) => {
  const where = event.target;
  const writes = where instanceof HTMLInputElement || where instanceof HTMLSelectElement || where instanceof HTMLTextAreaElement;
  if (event.key === "/" && !writes && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    const box = element("q");
    if (box) box.select(), box.focus();
    else location.assign("/#q");
  } else if (event.key === "Escape" && where === element("q") && where.value) {
    where.value = "";
    where.dispatchEvent(new Event("input", { bubbles: true }));
  }
});

// --- a job's log, from where the page has it

const log = element("log");

async function follow() {
  let offset = Number(log.dataset.offset);
  const reader = new TextDecoder();
  for (;;) {
    let rest = 0;
    let running = true;
    try {
      const answer = await fetch(`/api/v1/jobs/${encodeURIComponent(log.dataset.job)}/log?offset=${offset}`);
      if (answer.ok) {
        const bytes = await answer.arrayBuffer();
        const text = reader.decode(bytes, { stream: true });
        const below = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
        rest = bytes.byteLength;
        offset = Number(answer.headers.get("reconciler-next-offset"));
        running = answer.headers.get("reconciler-running") === "true";
        if (text) {
          element("log-empty")?.remove();
          log.append(text.replace(/(?![\n\t])[\p{C}]/gu, "\ufffd"));
          if (below) log.scrollTop = log.scrollHeight;
        }
      }
    } catch {
      alive(false);
    }
    if (!running && !rest) return;
    if (!rest) await new Promise((done) => setTimeout(done, 1000));
  }
}

if (log && "follow" in log.dataset) follow();
listen();
ages();
setInterval(ages, 10000);
