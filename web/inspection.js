// Once a second this loads the page again, and puts its picture in the place of the one shown.
const interval = 1000; // milliseconds
const patience = 3000; // milliseconds, because a service that hangs is silent and refuses nothing

async function update() {
  const picture = document.getElementById("picture");
  try {
    const answer = await fetch(location.href, { signal: AbortSignal.timeout(patience) });
    if (!answer.ok) throw new Error(answer.statusText);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    picture.replaceWith(page.getElementById("picture"));
  } catch {
    picture.classList.add("stale"); // the picture shown gets old
  }
  setTimeout(update, interval);
}

setTimeout(update, interval);
