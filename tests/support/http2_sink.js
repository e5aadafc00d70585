// A push service on Node's http2 over TLS, with a ledger of its own: which apns-id it accepted, and
// how often. A JSON object on the command line tells what to do badly; a line on stdin asks for the ledger.
const http2 = require("http2");
const fs = require("fs");

const play = JSON.parse(process.argv[2]);
const accepted = new Map(); // apns-id: how often it was answered 200
const counts = { sessions: 0, streams: 0, goaways: 0, statuses: {}, refused: 0, silent: 0 };

const server = http2.createSecureServer({
  cert: fs.readFileSync(play.certificate),
  key: fs.readFileSync(play.key),
  settings: {
    maxConcurrentStreams: play.firstLimit || play.limit || 1000,
    initialWindowSize: play.window || 65535,
  },
});

function count(object, name) {
  object[name] = (object[name] || 0) + 1;
}

server.on("session", (session) => {
  counts.sessions += 1;
  session.seen = 0;
  session.on("error", () => {});
});

function leave(session, stream) {
  // As the big services do: first a GOAWAY for "no more", then the real last stream.
  counts.goaways += 1;
  session.left = true;
  if (play.goawayTwice) session.goaway(0, 2 ** 31 - 1);
  session.lastAccepted = stream.id;
  session.goaway(0, stream.id);
  const timer = setInterval(() => {
    if (session.destroyed) clearInterval(timer);
    else if (!session.open) {
      clearInterval(timer);
      session.close();
    }
  }, 5);
}

server.on("stream", (stream, headers) => {
  const session = stream.session;
  stream.on("error", () => {});
  if (!session) return; // it was cut meanwhile
  counts.streams += 1;
  if (session.left && stream.id > session.lastAccepted) return; // as promised: not processed
  session.seen += 1;
  session.open = (session.open || 0) + 1;
  stream.on("close", () => (session.open -= 1));
  const number = counts.streams;
  const every = (n) => n && number % n === 0;
  const body = [];
  stream.on("data", (piece) => body.push(piece));
  stream.on("end", () => {
    const id = headers["apns-id"];
    const act = () => {
      if (stream.destroyed) return;
      if (every(play.refuseEvery)) {
        counts.refused += 1;
        return stream.close(http2.constants.NGHTTP2_REFUSED_STREAM);
      }
      if (every(play.resetEvery)) {
        // Nobody can know: half of them were accepted before.
        if (number % (2 * play.resetEvery) === 0) accept(id);
        count(counts, "reset");
        return stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR);
      }
      if (every(play.silentEvery)) {
        counts.silent += 1;
        return accept(id);
      }
      if (every(play.busyEvery)) return answer(stream, 429, id, { "retry-after": "3" }, "TooManyRequests");
      if (every(play.downEvery)) return answer(stream, 503, id, { "retry-after": "7" }, "ServiceUnavailable");
      accept(id);
      if (play.limit && play.firstLimit && !session.raised) {
        session.raised = true; // as Apple: one stream until the first success
        session.settings({ maxConcurrentStreams: play.limit });
      }
      answer(stream, 200, id, {}, null);
    };
    if (play.checkBody && Buffer.concat(body).length !== Number(headers["x-length"])) {
      return stream.close(http2.constants.NGHTTP2_PROTOCOL_ERROR);
    }
    if (play.delay) setTimeout(act, play.delay);
    else act();
  });
  if (play.goawayEvery && !session.left && session.seen >= play.goawayEvery) leave(session, stream);
  if (play.cutEvery && every(play.cutEvery)) setImmediate(() => session.socket && session.destroy());
});

function accept(id) {
  accepted.set(id, (accepted.get(id) || 0) + 1);
}

function answer(stream, status, id, more, reason) {
  count(counts.statuses, status);
  stream.respond({ ":status": status, "apns-id": id, ...more }, { endStream: reason === null });
  if (reason !== null) stream.end(JSON.stringify({ reason }));
}

server.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: server.address().port })));

process.stdin.on("data", () => {
  const twice = [...accepted].filter(([, times]) => times > 1).map(([id]) => id);
  console.log(JSON.stringify({ accepted: [...accepted.keys()], twice, counts }));
});
process.stdin.on("end", () => process.exit(0));
