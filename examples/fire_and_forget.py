"""Submits a request, and reads its answer later from another process.

python examples/fire_and_forget.py          submits, prints the job's id, and ends
python examples/fire_and_forget.py ID       reads the answer, first from the journal and then live
"""

import sys

import mesh


def main() -> None:
    with mesh.blocking.connect("nats://127.0.0.1:4222") as client:
        if len(sys.argv) == 1:
            model = client.workers()[0].model
            print(client.submit(model, "Count from 1 to 30.", max_tokens=120).id)
            return
        job = client.job(sys.argv[1])
        for delta in job:
            print(delta.text, end="", flush=True)
        print(f"\n{job.result().status}")


if __name__ == "__main__":
    main()
