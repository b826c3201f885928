//! SQL over sets and vectors: it reads, and nothing else.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use expect_test::{Expect, expect};
use futures_util::TryStreamExt;
use millstream_featurestore::offline::{HistoryError, Vector};
use millstream_graph::rows;
use tempfile::tempdir;

use super::{block, cards, causes, set_of, shown, store};

fn history() -> RecordBatch {
    rows! {
        card: [7_i64, 8, 7, 7],
        avg: [1.0, 5.0, 2.0, 3.0],
        tier: ["a", "x", "b", "c"],
        _event: [100_i64, 100, 200, 200],
        _created: [Some(0_i64), None, Some(2), Some(1)],
    }
}

fn check(query: &str, expected: Expect) {
    block(async {
        let folder = tempdir().unwrap();
        let mut store = store(2, vec![set_of(&folder, cards(), history()).await]);
        store.insert_vector(Vector::new("fraud").features(["cards.tier AS t"]).by("cards", ["id"])).unwrap();
        let answer = async {
            let stream = store.query(query).await?;
            let schema = stream.schema();
            let batches: Vec<RecordBatch> = stream.try_collect().await?;
            Ok::<_, HistoryError>(shown(&concat_batches(&schema, &batches).unwrap()))
        };
        expected.assert_eq(&answer.await.unwrap_or_else(|error| causes(&error)));
    });
}

#[test]
fn every_set_is_a_table_of_its_log() {
    check(
        "SELECT card, count(*) AS n, max(avg) AS top, max(_sequence) AS last FROM cards GROUP BY card ORDER BY card",
        expect![[r#"
            +------+---+-----+------+
            | card | n | top | last |
            +------+---+-----+------+
            | 7    | 3 | 3.0 | 3    |
            | 8    | 1 | 5.0 | 1    |
            +------+---+-----+------+"#]],
    );
    check(
        "SELECT tier FROM cards WHERE _event > TIMESTAMP '1970-01-01T00:00:00.000150Z' ORDER BY _sequence",
        expect![[r#"
            +------+
            | tier |
            +------+
            | b    |
            | c    |
            +------+"#]],
    );
}

#[test]
fn a_vector_is_a_table_of_the_newest_rows() {
    check(
        "SELECT * FROM fraud ORDER BY id",
        expect![[r#"
        +----+---+
        | id | t |
        +----+---+
        | 7  | b |
        | 8  | x |
        +----+---+"#]],
    );
}

#[test]
fn what_would_change_anything_is_refused() {
    for query in [
        "CREATE TABLE t AS SELECT 1",
        "DROP TABLE cards",
        "INSERT INTO cards SELECT * FROM cards",
        "COPY cards TO '/tmp/stolen.parquet'",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "SET datafusion.execution.batch_size = 1",
    ] {
        block(async {
            let folder = tempdir().unwrap();
            let store = store(1, vec![set_of(&folder, cards(), history()).await]);
            let error = store.query(query).await.err().map(|error| causes(&error));
            let error = error.unwrap_or_else(|| panic!("{query}"));
            assert!(error.contains("not supported"), "{query}: {error}");
        });
    }
}

/// A path in quotes is a table in DataFusion's own shell. Files are not tables here.
#[test]
fn files_are_no_tables() {
    check(
        "SELECT * FROM '/etc/passwd'",
        expect!["no feature set or vector `/etc/passwd`; there is `cards`, `fraud`"],
    );
}

#[test]
fn a_vector_with_mistakes_or_a_taken_name_is_refused() {
    block(async {
        let folder = tempdir().unwrap();
        let mut store = store(1, vec![set_of(&folder, cards(), history()).await]);
        let mut refused = |vector: Vector| store.insert_vector(vector).unwrap_err().to_string();
        let cases = [
            (Vector::new("cards").features(["cards.avg"]), "a feature set is named `cards` already"),
            (Vector::new("v").features(["crads.avg"]), "no feature set `crads`; did you mean `cards`?"),
            (
                Vector::new("v").features(["cards.agv"]),
                "feature set `cards` has no feature `agv`; did you mean `avg`?",
            ),
        ];
        for (vector, message) in cases {
            assert_eq!(refused(vector), message);
        }
    });
}
