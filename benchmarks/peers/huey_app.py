"""The Huey that the client and its consumer share."""

import os

from huey import RedisHuey
from work import square

huey = RedisHuey("bench", url=os.environ["BENCH_REDIS"])
task = huey.task(name="square")(square)
