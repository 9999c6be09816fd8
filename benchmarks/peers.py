"""Other ways to ask for jobs, one process each: prints CPU in µs a request.

Needs what `requirements/bench.txt` names, and nothing of the watcher.

    peers.py aiohttp URL RATE SECONDS TICK   GET and JSON; a TICK of 0 is evenly paced
    peers.py httpx URL RATE SECONDS TICK     likewise
    peers.py drop URL COUNT JOB INTERVAL     aiohttp reads a body and drops it
    peers.py sdk URL COUNT THREADS JOB       the official SDK: fetch, compare the tasks
"""

import asyncio
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

PATH = "/v1/p/dev-servers/jobs/"
JOBS = 1000


async def paced(get, rate, seconds, tick):
    loop, sent, tasks = asyncio.get_running_loop(), 0, set()
    began = loop.time()
    before = time.process_time()
    while loop.time() < began + seconds:
        due = int((loop.time() - began) * rate)
        while sent < due:
            task = asyncio.ensure_future(get(sent))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            sent += 1
            if not tick:
                break
        await asyncio.sleep(tick or max(0, began + (sent + 1) / rate - loop.time()))
    await asyncio.gather(*tasks)
    return 1e6 * (time.process_time() - before) / sent


async def aiohttp_paced(url, rate, seconds, tick):
    import aiohttp

    async with aiohttp.ClientSession() as session:

        async def get(number):
            job = f"job-{number % JOBS}"
            async with session.get(url + PATH + job) as answer:
                json.loads(await answer.read())

        return await paced(get, float(rate), float(seconds), float(tick))


async def httpx_paced(url, rate, seconds, tick):
    import httpx

    limits = httpx.Limits(max_connections=64)
    async with httpx.AsyncClient(limits=limits, timeout=30.0) as client:

        async def get(number):
            json.loads((await client.get(f"{url}{PATH}job-{number % JOBS}")).content)

        return await paced(get, float(rate), float(seconds), float(tick))


async def aiohttp_dropped(url, count, job, interval=0):
    import aiohttp

    async with aiohttp.ClientSession() as session:

        async def get():
            async with session.get(url + PATH + job) as answer:
                async for _ in answer.content.iter_any():
                    pass

        await get()
        before = time.process_time()
        for _ in range(int(count)):
            await get()
            await asyncio.sleep(float(interval))
        return 1e6 * (time.process_time() - before) / int(count)


def sdk(url, count, threads, job):
    from huaweicloudsdkcore.auth.credentials import BasicCredentials
    from huaweicloudsdkcore.http.http_config import HttpConfig
    from huaweicloudsdkmodelarts.v1 import GetDevServerJobRequest, ModelArtsClient

    client = (
        ModelArtsClient.new_builder()
        .with_http_config(HttpConfig.get_default_config())
        .with_credentials(
            BasicCredentials(
                "QTWAOYTTINDUT2QVKYUC", "MFyfvK41ba2giqM7Uio6PznpdUKGpownRZlmVmHc", "p"
            )
        )
        .with_endpoint(url)
        .build()
    )
    known = {}

    def get(number):
        name = job if job != "-" else f"job-{number % JOBS}"
        answer = client.get_dev_server_job(GetDevServerJobRequest(id=name))
        words = {task.id: task.status for task in answer.tasks}
        before = known.get(name, {})
        known[name] = words
        return [each for each in words if before.get(each) != words[each]]

    with ThreadPoolExecutor(int(threads)) as pool:
        list(pool.map(get, range(int(threads))))
        before = time.process_time()
        list(pool.map(get, range(int(count))))
        return 1e6 * (time.process_time() - before) / int(count)


def main(name, url, *numbers):
    if name == "sdk":
        return sdk(url, *numbers)
    peers = {"aiohttp": aiohttp_paced, "httpx": httpx_paced, "drop": aiohttp_dropped}
    return asyncio.run(peers[name](url, *numbers))


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
