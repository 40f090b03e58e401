// What changes in the worklist, as the server tells it. The browser connects anew by
// itself; `onStudy` gets the facts of one study.

export function follow(onStudy) {
  const source = new EventSource("/api/v1/events");
  source.addEventListener("study", (event) => onStudy(JSON.parse(event.data)));
  window.addEventListener("pagehide", () => source.close());
  return source;
}
