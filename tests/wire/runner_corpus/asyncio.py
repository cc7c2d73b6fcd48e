import asyncio


async def work(n):
    await asyncio.sleep(0.001 * n)
    return n


async def main():
    print(await asyncio.gather(*(work(n) for n in range(5))))
    process = await asyncio.create_subprocess_exec("echo", "from a child", stdout=asyncio.subprocess.PIPE)
    print((await process.communicate())[0], process.returncode)
    raise ValueError("out of the loop")


asyncio.run(main())
