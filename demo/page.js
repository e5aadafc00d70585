// The stream as a webmail page uses it, with everything shown that such a page would hide.
//
// The rules a reader of these streams follows, all in Stream below:
// - a number only rises, except when the server says "resync": then it asks the mail server;
// - the browser reconnects by itself and says what it has seen (Last-Event-ID);
// - when it gives up (an answer other than 200), the page opens the stream anew and says it instead.

const KINDS = ["mail", "calendar", "contacts"];
const MOST_EVENTS = 40;
const $ = (id) => document.getElementById(id);
const text = (id, value) => { $(id).textContent = value; };

async function ask(path, options) {
  const response = await fetch(path, options);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error ?? `The demo answered ${response.status}.`);
  return answer;
}

// --- numbers ---------------------------------------------------------------------------------------

// Numbers beyond 2^53-1 come as strings, so BigInt everywhere.
const known = {};
const server = {};
let pressed = null; // when a button was pressed, until the number it moves has moved

function show(kind) {
  if (known[kind] !== undefined) text(`known-${kind}`, known[kind].toString());
  if (server[kind] !== undefined) text(`server-${kind}`, server[kind].toString());
  $(`card-${kind}`).classList.toggle("same", known[kind] !== undefined && known[kind] === server[kind]);
}

function learn(kind, number, mayLower = false) {
  const before = known[kind];
  if (before !== undefined && (number === before || (number < before && !mayLower))) return;
  known[kind] = number;
  show(kind);
  if (before === undefined) return;
  const card = $(`card-${kind}`);
  card.classList.remove("moved");
  void card.offsetWidth; // restart the highlight
  card.classList.add("moved");
  text("announce", `${kind} is now ${number}`);
  if (pressed?.kind === kind) {
    text("latency", `${Math.round(performance.now() - pressed.at)} ms`);
    pressed = null;
  }
}


let asking = null;
function askServer() {
  clearTimeout(asking);
  asking = setTimeout(async () => {
    try {
      const numbers = await ask("/numbers");
      for (const kind of KINDS) { server[kind] = BigInt(numbers[kind]); show(kind); }
    } catch { /* the next event or the next look tells */ }
  }, 60);
}

// --- the stream ------------------------------------------------------------------------------------

class Stream {
  #source = null;
  #last = "0"; // "I know nothing": the first block is the known state
  #blocks = 0;
  #opened = 0;
  #resyncs = 0;
  #since = null; // while starting over: what was pushed meanwhile

  async open() {
    let setup;
    try {
      setup = await ask("/setup");
    } catch {
      this.#later();
      return;
    }
    const url = new URL(setup.events);
    url.searchParams.set("token", setup.token);
    url.searchParams.set("lastEventId", this.#last);
    const source = this.#source = new EventSource(url);
    source.onopen = () => {
      text("opened", ++this.#opened);
      state("connected", "Connected");
    };
    source.onerror = () => {
      state("reconnecting", "Reconnecting…");
      // CONNECTING: the browser tries again by itself. CLOSED: it has given up, we have not.
      if (source.readyState === EventSource.CLOSED) this.#later();
    };
    source.addEventListener("push", (event) => {
      this.#note(event);
      this.#learn(JSON.parse(event.data));
      askServer();
    });
    source.addEventListener("resync", (event) => {
      this.#note(event);
      text("resyncs", ++this.#resyncs);
      this.#startOver();
    });
    source.addEventListener("shared", (event) => {
      this.#note(event);
      const data = JSON.parse(event.data);
      list({ at: Date.now() / 1000, outcome: "told", streams: 1, account: data.account,
        event: { event_type: "Shared mailbox changed", folder: `of ${data.account}` }, moved: [] });
    });
  }

  #learn(data) {
    for (const kind of KINDS) {
      const value = BigInt(data[`${kind}ModSeq`]);
      learn(kind, value);
      if (this.#since && value > (this.#since[kind] ?? 0n)) this.#since[kind] = value;
    }
  }

  // Something may have happened that nobody told us: ask the mail server, as on the first visit.
  // Only its answer may lower a number, and not below what was pushed while it was on its way.
  async #startOver() {
    state("resync", "Starting over…");
    const since = this.#since = {};
    try {
      const numbers = await ask("/numbers");
      for (const kind of KINDS) {
        const pushed = since[kind] ?? 0n;
        const asked = BigInt(numbers[kind]);
        learn(kind, asked > pushed ? asked : pushed, true);
      }
      if (this.#since === since) this.#since = null;
      if (this.#source.readyState === EventSource.OPEN) state("connected", "Connected");
    } catch {
      setTimeout(() => this.#startOver(), 1000);
    }
    askServer();
  }

  #later() {
    setTimeout(() => this.open(), 500 + Math.random() * 1000);
  }

  #note(event) {
    this.#last = event.lastEventId;
    text("count", ++this.#blocks);
    const block = `event: ${event.type}\nid: ${event.lastEventId}\ndata: ${event.data}\n`;
    // May be wrapped after a comma, and copied without a trace of it.
    const parts = block.split(/(?<=,)/).flatMap((part) => [document.createElement("wbr"), part]);
    $("block").replaceChildren(...parts);
  }
}

function state(name, words) {
  const pill = $("state");
  if (pill.dataset.state === name) return;
  pill.dataset.state = name;
  text("state-text", words);
}

// --- what happened ---------------------------------------------------------------------------------

const OUTCOMES = {
  told: (line) => `told to ${line.streams} ${line.streams === 1 ? "stream" : "streams"}`,
  noted: () => "noted, nobody is connected",
  known: () => "already known",
  rests: () => "moves nothing",
  kept: (line) => `queued: ${line.detail ?? "a job"}`,
  refused: (line) => `refused: ${line.detail ?? ""}`,
  rejected: (line) => `rejected: ${line.detail ?? ""}`,
  ignored: () => "ignored",
};
// What the event types of RFC 5423 and Cyrus mean, for those who do not know them.
const MEANINGS = {
  MailboxModseq: (where) => `${where} changed`,
  MessageNew: (where) => `something new in ${where}`,
  MessageAppend: (where) => `something new in ${where}`,
  MessageRead: (where) => `read in ${where}`,
  MessageTrash: (where) => `marked as deleted in ${where}`,
  MessageExpunge: (where) => `removed from ${where}`,
  MessageExpire: (where) => `expired in ${where}`,
  MessageMove: (where) => `moved to ${where}`,
  MessageCopy: (where) => `copied to ${where}`,
  FlagsSet: (where) => `flagged in ${where}`,
  FlagsClear: (where) => `flags removed in ${where}`,
  MailboxCreate: (where) => `${where} was made`,
  MailboxDelete: (where) => `${where} was deleted`,
  AclChange: (where) => `who may see ${where} changed`,
};
const WORDS = {
  delivery: "new mail", mailFolders: "mail folders", calendarFolders: "calendars",
  contactsFolders: "address books", sharedWithMe: "shared with me",
};
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

function element(tag, className, content) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = content;
  return made;
}

function meaning(event) {
  // A user's calendars and address books are folders with a sign before their kind.
  const where = event.folder?.replace(/^#calendars\b/, "Calendars").replace(/^#addressbooks\b/, "Address books");
  return where && (MEANINGS[event.event_type]?.(where) ?? where);
}

function list(line) {
  const event = line.event ?? {};
  const row = element("li", `event fresh ${line.outcome}`, "");
  if (KINDS.includes(event.kind)) row.dataset.kind = event.kind;
  const at = new Date(line.at * 1000);
  const time = element("time", "", clock.format(at));
  time.dateTime = at.toISOString();
  // "highest" is the sum of all and moves whenever anything does.
  const moved = (line.moved ?? []).filter((name) => name !== "highest").map((name) => WORDS[name] ?? name);
  const moves = moved.length ? `moved ${moved.join(", ")}` : "";
  const where = [meaning(event) ?? line.method, moves];
  row.append(
    time,
    element("span", "type", event.event_type ?? line.class ?? "Not understood"),
    element("span", "became", (OUTCOMES[line.outcome] ?? (() => line.outcome))(line)),
    element("span", "where", where.filter(Boolean).join(" · ") || "–"),
  );
  const events = $("events");
  events.prepend(row);
  while (events.children.length > MOST_EVENTS) events.lastChild.remove();
  $("no-events").hidden = true;
}

function feed() {
  const source = new EventSource("/feed");
  source.onmessage = (message) => { list(JSON.parse(message.data)); askServer(); };
  source.addEventListener("pusher", (message) => {
    if (!JSON.parse(message.data).up) answer("pusher is away. Events are lost meanwhile; watch what happens when it is back.", true);
    else if ($("answer").classList.contains("bad")) answer("pusher is back.");
  });
}

// --- mails -----------------------------------------------------------------------------------------

let shown = null; // the number of the mail in view
let newest = 0;

function view(mail) {
  shown = mail.number;
  const frame = $("mail-html");
  frame.hidden = !mail.html;
  if (mail.html && frame.dataset.number !== String(mail.number)) {
    frame.dataset.number = mail.number;
    frame.src = `/mails/${mail.number}`;
  }
  $("mail-text").hidden = mail.html;
  text("mail-text", mail.html ? "" : mail.text);
  for (const button of $("mail-list").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", button.dataset.number === String(shown));
  }
}

async function askMails() {
  let mails;
  try {
    ({ mails } = await ask("/mails"));
  } catch { return; }
  if (!mails.length || mails[0].number === newest) return;
  newest = mails[0].number;
  $("no-mails").hidden = true;
  $("mail-box").hidden = false;
  $("mail-list").replaceChildren(...mails.map((mail) => {
    const button = element("button", "mail", "");
    button.type = "button";
    button.dataset.number = mail.number;
    button.append(element("span", "subject", mail.subject), element("span", "to", `to ${mail.to}`));
    button.addEventListener("click", () => view(mail));
    const row = element("li", "", "");
    row.append(button);
    return row;
  }));
  view(mails[0]);
}

// --- buttons ---------------------------------------------------------------------------------------

const MOVES = { deliver: "mail", read: "mail", calendar: "calendar", contact: "contacts" };

const HINT = $("answer").textContent;

function answer(words, isBad = false) {
  text("answer", words);
  $("answer").classList.toggle("bad", isBad);
}

async function press(button) {
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  const { action } = button.dataset;
  pressed = MOVES[action] ? { kind: MOVES[action], at: performance.now() } : null;
  try {
    if (action !== "crash") answer(HINT);
    await ask(`/do/${action}`, { method: "POST" });
  } catch (error) {
    pressed = null;
    answer(error.message, true);
  } finally {
    button.removeAttribute("aria-disabled");
    askServer();
  }
}

for (const button of document.querySelectorAll("button[data-action]")) {
  button.addEventListener("click", () => press(button));
}

const setup = await ask("/setup");
text("account", setup.account);
text("mode-text", setup.mode === "cyrus"
  ? "In a real Cyrus IMAP server on this machine"
  : "Plays what a real Cyrus IMAP server said, with new numbers");
document.querySelector('[data-action="crash"]').hidden = !setup.canCrash;
new Stream().open();
feed();
askServer();
setInterval(askServer, 5000);
askMails();
setInterval(askMails, 1000);
