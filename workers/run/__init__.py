"""One attempt of a job in a separate process: a folder in, events and a result out.

`python -m workers.run FOLDER` reads `FOLDER/order.json` and `FOLDER/inputs/`, and writes
`FOLDER/events.jsonl`, `FOLDER/output/` and `FOLDER/result.json`. It needs no database and no
broker, and uses neither Django nor Celery.
"""
