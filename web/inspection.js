// Once a second, puts the picture of the page as it would be loaded now in the place of this one.
const interval = 1000; // milliseconds
const patience = 3000; // milliseconds: a service that hangs does not refuse, it is silent

async function update() {
  const picture = document.getElementById("picture");
  try {
    const answer = await fetch(location.href, { signal: AbortSignal.timeout(patience) });
    if (!answer.ok) throw new Error(answer.statusText);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    picture.replaceWith(page.getElementById("picture"));
  } catch {
    picture.classList.add("stale"); // nothing new: what is shown gets old
  }
  setTimeout(update, interval);
}

setTimeout(update, interval);
