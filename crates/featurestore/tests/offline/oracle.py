#!/usr/bin/env python3
"""What DuckDB and pandas answer for the cases in a folder: `oracle.py FOLDER CASES`.

For case N it reads N.log, N.spine and N.rules.parquet, and writes N.answers.parquet with the columns
  sql     the id of the winning row, by the definition in SQL: a range join and row_number;
  asof    the event of the winning row, by DuckDB's ASOF LEFT JOIN;
  pandas  the event of the winning row, by merge_asof.
The last two are there only for cases in which creation and ends of rows do not matter, since neither knows them.
"""

import sys

import duckdb
import pandas as pd

SQL = """
WITH spine AS (SELECT row_number() OVER () AS n, * FROM read_parquet('{spine}')),
ranked AS (
  SELECT spine.n, spine.at, log.*,
         row_number() OVER (PARTITION BY spine.n ORDER BY _event DESC, _created DESC NULLS LAST, id DESC) AS rank
  FROM spine JOIN read_parquet('{log}') AS log
    ON spine.a = log.a AND spine.b = log.b AND log._event {before} spine.at {known}
)
SELECT spine.n, CASE WHEN {fresh} (_valid_to IS NULL OR ranked.at <= _valid_to) THEN id END AS id
FROM spine LEFT JOIN ranked ON spine.n = ranked.n AND ranked.rank = 1 ORDER BY spine.n
"""

ASOF = """
WITH spine AS (SELECT row_number() OVER () AS n, * FROM read_parquet('{spine}'))
SELECT spine.n, CASE WHEN {fresh} TRUE THEN log._event END AS event
FROM spine ASOF LEFT JOIN read_parquet('{log}') AS log
  ON spine.a = log.a AND spine.b = log.b AND spine.at {after} log._event
ORDER BY spine.n
"""


def by_pandas(spine, log, exclusive, ttl):
    spine = spine.reset_index(names="n")
    usable = spine.dropna(subset=["a", "at"]).astype({"a": "int64", "at": "int64"}).sort_values("at", kind="stable")
    log = log[["a", "_event"]].sort_values("_event", kind="stable")
    joined = pd.merge_asof(usable, log, left_on="at", right_on="_event", by="a", direction="backward",
                           allow_exact_matches=not exclusive, tolerance=ttl)
    return spine.merge(joined[["n", "_event"]], on="n", how="left").sort_values("n")["_event"].astype("Int64")


def main(folder, cases):
    con = duckdb.connect()
    for number in range(cases):
        paths = {what: f"{folder}/{number}.{what}.parquet" for what in ("log", "spine", "rules")}
        exclusive, ttl, lag = con.execute(f"SELECT exclusive, ttl, lag FROM '{paths['rules']}'").fetchone()
        known = "" if lag is None else f"AND (_created IS NULL OR _created + {lag} <= spine.at)"
        sql = SQL.format(**paths, before="<" if exclusive else "<=", known=known,
                         fresh="" if ttl is None else f"ranked.at - _event <= {ttl} AND")
        answers = {"sql": con.execute(sql).df()["id"].astype("Int64")}
        log = pd.read_parquet(paths["log"])
        if lag is None and log["_valid_to"].isna().all():
            fresh = "" if ttl is None else f"spine.at - log._event <= {ttl} AND"
            asof = ASOF.format(**paths, after=">" if exclusive else ">=", fresh=fresh)
            answers["asof"] = con.execute(asof).df()["event"].astype("Int64")
            answers["pandas"] = by_pandas(pd.read_parquet(paths["spine"]), log, exclusive, ttl).reset_index(drop=True)
        pd.DataFrame(answers).to_parquet(f"{folder}/{number}.answers.parquet")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
