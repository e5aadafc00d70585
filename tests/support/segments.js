// Reads a JSON list of texts, prints for each what Twilio's calculator says.
const { SegmentedMessage } = require("sms-segments-calculator");

let read = "";
process.stdin.on("data", (piece) => (read += piece));
process.stdin.on("end", () => {
  const answers = JSON.parse(read).map((text) => {
    const message = new SegmentedMessage(text);
    return [message.encodingName, message.segmentsCount];
  });
  console.log(JSON.stringify(answers));
});
