import threading
import time


def work():
    time.sleep(0.05)
    print("still joined")


threading.Thread(target=work).start()
raise ValueError("main is broken")
