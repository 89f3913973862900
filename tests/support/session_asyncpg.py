"""A session with a database through a listener, by asyncpg, which speaks the protocol itself: what it does, a line each."""

import asyncio
import sys

import asyncpg

host, port, database = sys.argv[1], int(sys.argv[2]), sys.argv[3]


async def main():
    settings = {"application_name": "reports", "jit": "off"}
    try:
        connection = await asyncpg.connect(
            host=host, port=port, user="x", database=database, server_settings=settings
        )
    except (asyncpg.PostgresError, OSError) as error:
        print("refused", type(error).__name__, getattr(error, "sqlstate", ""), error, flush=True)
        print("hint", getattr(error, "hint", ""), flush=True)
        return
    row = await connection.fetchrow("select current_user::text, current_database()::text, $1::int * 7", 6)
    print("row", *row)
    print("set", await connection.fetchval("show application_name"), await connection.fetchval("show jit"))
    await connection.execute("create temp table numbers (n int)")
    await connection.copy_records_to_table("numbers", records=[(n,) for n in range(10_000)])
    print("sum", await connection.fetchval("select sum(n) from numbers"))
    try:
        # asyncpg ends the statement by a cancel request of its own.
        await asyncio.wait_for(connection.execute("select pg_sleep(60)"), 0.5)
    except asyncio.TimeoutError:
        print("cancelled", await connection.fetchval("select 1"))
    await connection.close()


asyncio.run(main())
