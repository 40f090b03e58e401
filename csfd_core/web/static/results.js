// Where the results of a study have gone, and sending them: openResults(root).

import { askJson, toast } from "./api.js";

const LOOK_AGAIN_MS = 2000;
const UNDER_WAY = ["waiting", "sending"];
const KIND_OF = {
  sent: "good", committed: "good", failed: "bad", "partly sent": "warn", waiting: "warn",
};
const NAME_OF = { committed: "sent, kept for good" };
const FALLEN_BACK = 1; // attempts after which a delivery that waits has failed before

export async function openResults(root) {
  const path = `/studies/${root.dataset.studyUid}`;
  const place = (name) => root.querySelector(`[data-place="${name}"]`);
  let timer = 0;

  function show(facts) {
    place("signed").hidden = !facts.has_review;
    const why = facts.why_not || (facts.peers.length ? "" : noPeer());
    place("why").textContent = why;
    place("why").hidden = why === "";
    place("send").hidden = why !== "";
    showPeers(place("peers"), facts.peers);
    place("rows").replaceChildren(...facts.deliveries.map(row));
    place("sent").hidden = facts.deliveries.length === 0;
    clearTimeout(timer);
    if (facts.deliveries.some((one) => UNDER_WAY.includes(one.state))) {
      timer = setTimeout(() => look().catch(() => {}), LOOK_AGAIN_MS);
    }
  }

  async function look() {
    show(await askJson("GET", `${path}/results`));
  }

  place("send").addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      const peer_id = Number(place("peers").value);
      show(await askJson("POST", `${path}/push`, { peer_id }));
    } catch (error) {
      toast(error.message, "bad");
    }
  });
  window.addEventListener("csfd:signed", () => look().catch(() => {}));
  window.addEventListener("pagehide", () => clearTimeout(timer));
  await look();
}

function noPeer() {
  return "There is no peer to send to: administrators add them.";
}

function showPeers(select, peers) {
  const chosen = select.value;
  select.replaceChildren(...peers.map((peer) => new Option(peer.name, peer.id)));
  if (peers.some((peer) => String(peer.id) === chosen)) select.value = chosen;
}

function row(one) {
  const line = document.createElement("tr");
  const state = document.createElement("span");
  state.className = `badge ${KIND_OF[one.state] ?? ""}`;
  state.textContent = NAME_OF[one.state] ?? one.state;
  line.append(
    cell(one.peer),
    cell(one.is_review ? "signed report" : "prediction"),
    cell(state),
    cell(moment(one.changed_at), "when"),
    cell(told(one), "told"),
  );
  return line;
}

function cell(content, name = "") {
  const made = document.createElement("td");
  made.className = name;
  made.append(content);
  return made;
}

function told(one) {
  if (one.state !== "waiting" || one.attempts < FALLEN_BACK) return one.told;
  const often = one.attempts === 1 ? "once" : `${one.attempts} times`;
  return `${one.told} Tried ${often}; again at ${moment(one.next_at)}.`;
}

function moment(seconds) {
  return new Date(seconds * 1000).toLocaleString([], {
    dateStyle: "short", timeStyle: "short",
  });
}
