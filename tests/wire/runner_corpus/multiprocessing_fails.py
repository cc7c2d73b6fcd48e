import multiprocessing


def fail():
    raise ValueError("in the process")


if __name__ == "__main__":
    process = multiprocessing.get_context("fork").Process(target=fail, name="failing")
    process.start()
    process.join()
    print(process.exitcode)
