// Requests to the API: the session's token goes along, refusals become errors with the
// server's own sentence.

let token = document.querySelector('meta[name="csrf"]').content;

export class Refusal extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

// Returns the response; throws a Refusal where the server says no, and a TypeError
// where there is no connection. `body`: an object, sent as JSON, or bytes.
export async function ask(method, path, body, headers = {}) {
  const response = await send(method, path, body, headers);
  // Somebody has signed in anew in another tab: this page goes on in that session.
  const isStale = response.status === 403 && response.headers.has("X-CSRF-Stale");
  if (isStale && (await renew())) return judge(await send(method, path, body, headers));
  return judge(response);
}

async function renew() {
  const response = await fetch("/api/v1/me");
  if (!response.ok) return false;
  token = (await response.json()).csrf;
  return true;
}

function send(method, path, body, headers) {
  const options = { method, headers: { "X-CSRF-Token": token, ...headers } };
  if (body instanceof Blob || body instanceof ArrayBuffer || ArrayBuffer.isView(body)) {
    options.body = body;
    options.headers["Content-Type"] = "application/octet-stream";
  } else if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  return fetch(`/api/v1${path}`, options);
}

async function judge(response) {
  if (response.ok) return response;
  let text = `The server answered ${response.status}.`;
  try {
    const told = (await response.json()).detail;
    if (typeof told === "string") text = told;
  } catch {
    // not JSON: the status has to do
  }
  if (response.status === 401) {
    window.dispatchEvent(new CustomEvent("csfd:signed-out"));
  }
  throw new Refusal(response.status, text);
}

export async function askJson(method, path, body) {
  const response = await ask(method, path, body);
  return response.status === 204 ? null : response.json();
}

// Shows a sentence at the foot of the page for a while; screen readers say it.
export function toast(text, kind = "info") {
  let place = document.getElementById("toasts");
  if (!place) {
    place = document.createElement("div");
    place.id = "toasts";
    place.setAttribute("role", "status");
    document.body.append(place);
  }
  const line = document.createElement("p");
  line.className = kind;
  line.textContent = text;
  place.append(line);
  setTimeout(() => line.remove(), 8000);
}

window.addEventListener("csfd:signed-out", () => {
  toast("The session has ended. Sign in again in another tab; nothing here is lost.", "bad");
});
