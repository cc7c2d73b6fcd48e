from concurrent.futures import ProcessPoolExecutor


def work(n):
    if n == 3:
        raise ValueError("three")
    return n


if __name__ == "__main__":
    with ProcessPoolExecutor(2) as pool:
        print(list(pool.map(work, range(3))))
        try:
            pool.submit(work, 3).result()
        except ValueError as error:
            print("raised", error)
