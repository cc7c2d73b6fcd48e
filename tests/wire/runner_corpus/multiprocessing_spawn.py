import multiprocessing

print("imported as", __name__, flush=True)


class Point:
    def __init__(self, x):
        self.x = x


def double(connection, point):
    connection.send(Point(point.x * 2))


if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=double, args=(theirs, Point(21)))
    process.start()
    print(ours.recv().x)
    process.join()
    print(process.exitcode)
