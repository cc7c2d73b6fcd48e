import multiprocessing


def square(n):
    return n * n


if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        print(pool.map(square, range(6)))
    queue = context.Queue()
    process = context.Process(target=queue.put, args=("from the child",), name="putter")
    process.start()
    print(queue.get(), process.name)
    process.join()
    print(process.exitcode)
