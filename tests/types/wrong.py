"""Mistakes of a user's program, one a line: a type checker must find every one of them."""

# Each line stands in a function of its own, which has these parameters.
PARAMETERS = (
    "client: mesh.Client, job: mesh.Job, result: mesh.Result, delta: mesh.Delta, "
    "blocking: mesh.blocking.BlockingClient, waiting: mesh.blocking.BlockingJob"
)

WRONG = {
    # The fields of a request.
    "a field's name": 'await client.submit("demo", "Hi", temprature=0)',
    "a field's name, for the Result at once": 'await client.generate("demo", "Hi", max_token=5)',
    "a field's name in a Request": 'mesh.Request(prompt="Hi", temprature=0)',
    "a field of another type": 'await client.submit("demo", "Hi", max_tokens="many")',
    "another field of another type": 'await client.generate("demo", "Hi", stop=5)',
    "a list of numbers for strings": 'await client.generate("demo", "Hi", stop=[5])',
    "a tier that does not exist": 'await client.submit("demo", "Hi", tier="urgent")',
    "a choice that does not exist": 'await client.submit("demo", "Hi", on_worker_loss="retry")',
    "a role that does not exist": 'await client.submit("demo", [{"role": "robot", "content": "Hi"}])',
    "a message without content": 'await client.submit("demo", [{"role": "user"}])',
    "a Message with a role that does not exist": 'mesh.Message(role="robot", content="Hi")',
    "a message in place of a list": 'await client.submit("demo", {"role": "user", "content": "Hi"})',
    "no model": "await client.submit(5)",
    "sampling of an embedding": 'await client.embed("demo", ["a"], max_tokens=5)',
    "an embedding of numbers": 'await client.embed("demo", [1, 2])',
    "a format that does not exist": 'await client.submit("demo", "Hi", response_format={"type": "xml"})',
    # What comes back.
    "an attribute of a Result": "print(result.txet)",
    "an attribute of its usage": "print(result.usage.completion_token)",
    "vectors that may not be there": "print(result.embeddings[0])",
    "a status that does not exist": 'print(result.status == "done")',
    "an attribute of a Delta": "print(delta.txt)",
    "an attribute of what a job shows": "async for shown in job: print(shown.txt)",
    "an attribute of a job's status": "print((await job.status()).sttus)",
    "a status as a dict": 'print((await job.status())["status"])',
    "an attribute of a worker": "print((await client.workers())[0].modle)",
    "an error that does not exist": "raise mesh.errors.QuotaExcededError",
    "a name of the package": "mesh.conect()",
    # Awaiting and iterating.
    "a job that was not awaited": 'print(client.submit("demo", "Hi").id)',
    "a call that was not awaited": 'client.generate("demo", "Hi")',
    "a loop that is not asynchronous": "for shown in job: print(shown)",
    "the Result of a job, not awaited": "print(job.result().text)",
    # Connecting.
    "an address that is none": "mesh.connect(5)",
    "an argument of connect": 'mesh.connect(tennant="acme")',
    "an encoding that does not exist": 'mesh.connect(encoding="xml")',
    "a client that was not opened": 'await mesh.connect().submit("demo", "Hi")',
    "an option of the connection": 'mesh.ConnectOptions(pasword="x")',
    # Plumbing.
    "a handle's plumbing": "job.settled(result)",
    "a client's plumbing": "client.watch",
    # Without an event loop.
    "blocking, a field's name": 'blocking.submit("demo", "Hi", temprature=0)',
    "blocking, a field of another type": 'blocking.generate("demo", "Hi", max_tokens="many")',
    "blocking, a timeout of another type": 'blocking.generate("demo", "Hi", timeout="5")',
    "blocking, an attribute of a Result": 'print(blocking.generate("demo", "Hi").txet)',
    "blocking, an attribute of a job's status": "print(waiting.status().sttus)",
    "blocking, awaited": 'await blocking.generate("demo", "Hi")',
    "blocking, an asynchronous loop": "async for shown in waiting: print(shown)",
    "blocking, awaited in place of its result": "await waiting",
    "blocking, an asynchronous context": "async with mesh.blocking.connect() as opened: print(opened)",
}


def program() -> tuple[str, dict[int, str]]:
    """The source of all of these, and the line at which each stands, counted from 1."""
    lines, places = ["import mesh", ""], {}
    for number, (name, line) in enumerate(WRONG.items()):
        lines += [f"async def wrong_{number}({PARAMETERS}) -> None:", f"    {line}", ""]
        places[len(lines) - 1] = name
    return "\n".join(lines), places
