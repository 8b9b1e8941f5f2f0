"""The app that the client and the workers of Celery share."""

import os

from celery import Celery
from work import square

app = Celery("bench", broker=os.environ["BENCH_REDIS"], backend=os.environ["BENCH_REDIS"])
# "If you have many tasks with a short duration ... say 64, or 128": Celery's page on optimizing.
app.conf.worker_prefetch_multiplier = 128
task = app.task(name="square")(square)
