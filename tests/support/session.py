"""A session with a database through a listener, by psycopg2: one order a line on stdin, one answer a line on stdout."""

import sys
import threading

import psycopg2

dsn = sys.argv[1]
try:
    connection = psycopg2.connect(dsn)
except psycopg2.OperationalError as error:
    print("refused", repr(str(error)), flush=True)
    sys.exit(1)
connection.autocommit = True
print("open", connection.get_parameter_status("server_version") is not None, flush=True)


def ask(order):
    try:
        with connection.cursor() as cursor:
            cursor.execute(order)
            return "row " + repr(cursor.fetchone())
    except psycopg2.Error as error:
        return type(error).__name__ + " " + repr(str(error))


for line in sys.stdin:
    order = line.strip()
    if order == "cancel":
        threading.Timer(0.5, connection.cancel).start()
        print(ask("select pg_sleep(60)"), flush=True)
    else:
        print(ask(order), flush=True)
