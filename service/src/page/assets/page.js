// Makes progress live. Everything else works without it.
"use strict";
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
function size(bytes) {
  let unit = 0;
  while (bytes >= 1024 && unit + 1 < UNITS.length) { bytes /= 1024; unit += 1; }
  return (unit === 0 ? bytes : bytes.toFixed(1)) + " " + UNITS[unit];
}
function sentence(operation) {
  switch (operation.state) {
    case "queued": return "Waits for " + (operation.position === 1 ? "one other operation" : operation.position + " other operations");
    case "running": return operation.progress.phase ? "Runs: " + operation.progress.phase : "Runs";
    case "succeeded": return "Done";
    case "canceled": return "Canceled";
    default: return "Failed";
  }
}
function show(place, operation) {
  place.dataset.state = operation.state;
  const text = sentence(operation);
  const state = place.querySelector(".state");
  // A screen reader hears a change of the words, not each number.
  if (state.textContent !== text) state.textContent = text;
  const bar = place.querySelector("progress");
  if (bar && !["queued", "running"].includes(operation.state)) { bar.remove(); return; }
  const { bytes_done, bytes_total, files_done, total_known } = operation.progress;
  if (bar && total_known && bytes_total > 0) { bar.max = bytes_total; bar.value = bytes_done; }
  else if (bar) bar.removeAttribute("value");
  if (files_done > 0 || bytes_done > 0) {
    const whole = total_known && bytes_total > 0 ? " of " + size(bytes_total) : "";
    place.querySelector(".figures").textContent =
      files_done + (files_done === 1 ? " file, " : " files, ") + size(bytes_done) + whole;
  }
}
for (const place of document.querySelectorAll("[data-operation]")) {
  if (!["queued", "running"].includes(place.dataset.state)) continue;
  const events = new EventSource("/operations/" + encodeURIComponent(place.dataset.operation) + "/events");
  events.addEventListener("progress", (event) => show(place, JSON.parse(event.data)));
  events.addEventListener("end", (event) => {
    events.close();
    show(place, JSON.parse(event.data));
    // The page knows more about an end than the script does.
    setTimeout(() => location.reload(), 300);
  });
}
