import sys

sys.stdout.write("".join(f"{n:07}\n" for n in range(100_000)))
sys.stderr.write("y" * 300_000)
