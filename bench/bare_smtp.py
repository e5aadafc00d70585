"""The limit of sending in Python: an aiosmtplib loop over ready mails, and nothing else.

python -m bench.bare_smtp PORT CONNECTIONS MAILS COUNT

Sends the files in MAILS in turn, COUNT in all, over connections opened before the clock starts.
Prints one JSON object. The recipient is `all@example.org`, as the server keeps one mailbox.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from aiosmtplib import SMTP


async def send(port: int, connections: int, mails: list[bytes], count: int) -> float:
    """Return the seconds it took to have all accepted."""
    clients = [SMTP(hostname="127.0.0.1", port=port) for _ in range(connections)]
    for client in clients:
        await client.connect()
        await client.ehlo()
    numbers = iter(range(count))
    began = time.perf_counter()
    await asyncio.gather(*(_send_some(client, mails, numbers) for client in clients))
    seconds = time.perf_counter() - began
    for client in clients:
        await client.quit()
    return seconds


async def _send_some(client: SMTP, mails: list[bytes], numbers: Iterator[int]) -> None:
    for number in numbers:
        await client.sendmail("a@example.org", "all@example.org", mails[number % len(mails)])


def main(port: str, connections: str, mails: str, count: str) -> None:
    """Send and print how fast that was."""
    contents = [path.read_bytes() for path in sorted(Path(mails).iterdir())]
    cpu = time.process_time()
    seconds = asyncio.run(send(int(port), int(connections), contents, int(count)))
    cpu = time.process_time() - cpu
    print(json.dumps({"per_second": int(count) / seconds, "cpu_per_mail": cpu * 1e3 / int(count)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
