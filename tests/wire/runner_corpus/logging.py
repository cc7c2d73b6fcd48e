import logging

logging.warning("from the root")
logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(module)s:%(lineno)d %(funcName)s %(message)s")
logging.getLogger("x").debug("more")
try:
    1 / 0
except ZeroDivisionError:
    logging.exception("caught")
