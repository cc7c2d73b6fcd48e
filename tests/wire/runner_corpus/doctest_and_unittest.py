import doctest
import unittest


def twice(n):
    """
    >>> twice(2)
    4
    """
    return n * 2


class Case(unittest.TestCase):
    def test_twice(self):
        self.assertEqual(twice(2), 4)


print(doctest.testmod())
result = unittest.main(
    exit=False,
    argv=["main.py"],
    testRunner=unittest.TextTestRunner(resultclass=None, stream=open("/dev/null", "w")),
).result
print(result.testsRun, result.wasSuccessful())
