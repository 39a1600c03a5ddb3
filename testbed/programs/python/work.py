"""Threads that hand work to each other while timers run and files grow; says what came of it."""

import hashlib
import mmap
import os
import queue
import select
import signal
import subprocess
import tempfile
import threading
import time

ROUNDS = 60

ticks = 0


def tick(_number, _frame):
    global ticks
    ticks += 1


def produce(tasks):
    for number in range(ROUNDS):
        tasks.put(number)
        time.sleep(0.03)
    tasks.put(None)


def digest(tasks, results):
    while (number := tasks.get()) is not None:
        state = str(number).encode()
        for _ in range(12000):
            state = hashlib.sha256(state).digest()
        results.put((number, state.hex()))
    results.put(None)


def main():
    signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    tasks, results = queue.Queue(), queue.Queue()
    threads = [threading.Thread(target=produce, args=(tasks,)), threading.Thread(target=digest, args=(tasks, results))]
    late = threading.Event()
    timer = threading.Timer(1.5, late.set)
    for thread in [*threads, timer]:
        thread.start()

    child = subprocess.Popen(["sed", "-u", "y/abcdef/ABCDEF/"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    hidden = tempfile.TemporaryFile(dir=".")
    kept = open("kept", "w+b")
    kept.truncate(1 << 20)
    shared = mmap.mmap(kept.fileno(), 1 << 20)
    started, began = time.monotonic(), time.time()
    lines = []
    while (result := results.get()) is not None:
        number, text = result
        child.stdin.write(text + "\n")
        child.stdin.flush()
        readable, _, _ = select.select([child.stdout], [], [], 20)
        lines.append(child.stdout.readline() if readable else "late\n")
        hidden.write(lines[-1].encode())
        shared[number * 64 : number * 64 + 64] = text.encode()
        with open("progress", "ab") as progress:
            progress.write(b".")
    child.stdin.close()
    status = child.wait()
    for thread in [*threads, timer]:
        thread.join()
    signal.setitimer(signal.ITIMER_REAL, 0)

    print("".join(lines), end="")
    print("child", status, "timer", late.is_set(), "ticks", ticks > 20)
    hidden.seek(0)
    print("hidden", hashlib.sha256(hidden.read()).hexdigest(), os.fstat(hidden.fileno()).st_nlink)
    shared.flush()
    kept.seek(0)
    print("kept", hashlib.sha256(kept.read()).hexdigest())
    # Neither clock may have jumped back; monotonic time goes on with the process's own, the other with the world's.
    print("clocks", 1 < time.monotonic() - started < 600, 1 < time.time() - began < 600)


main()
