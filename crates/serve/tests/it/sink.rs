//! `sink`: files in the project's folder.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arrow::{array::RecordBatch, compute::concat_batches};
use expect_test::expect;
use millstream_graph::{Graph, fields, rows};
use millstream_runtime::{Engine, Limits};
use millstream_serve::{
    Outside, Project,
    sink::{Sink, SinkRows},
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::server::{engine_of, json};

fn graph(sink: Sink) -> Graph {
    let mut graph = Graph::new("test", fields! { id: Int64, name: Utf8 });
    let reply = graph.respond(&graph.input());
    graph.step("kept", &reply, sink);
    graph
}

async fn run(engine: &Engine, id: i64) {
    engine.run(rows! { id: [id], name: [format!("n,{id}")] }).await.expect("a reply");
}

/// The files in a folder, by name.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(folder).map(|entries| entries.flatten().map(|entry| entry.path()).collect());
    let mut files: Vec<PathBuf> = entries.unwrap_or_default();
    files.sort();
    files
}

fn texts(folder: &Path) -> Vec<String> {
    files(folder).iter().map(|file| std::fs::read_to_string(file).expect("text")).collect()
}

fn parquet(file: &Path) -> RecordBatch {
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(File::open(file).expect("a file")).expect("Parquet");
    let schema = Arc::clone(reader.schema());
    let batches: Vec<_> = reader.build().expect("a reader").map(|batch| batch.expect("rows")).collect();
    concat_batches(&schema, &batches).expect("one schema")
}

#[tokio::test]
async fn rows_are_in_the_file_when_the_project_has_gone() {
    let folder = tempfile::tempdir().unwrap();
    for (ending, wanted) in [
        ("jsonl", "{\"id\":0,\"name\":\"n,0\"}\n{\"id\":1,\"name\":\"n,1\"}\n{\"id\":2,\"name\":\"n,2\"}\n"),
        ("csv", "id,name\n0,\"n,0\"\n1,\"n,1\"\n2,\"n,2\"\n"),
    ] {
        let engine =
            engine_of(&graph(Sink::new(&Outside::new(folder.path()), format!("log/{ending}/a.{ending}"))));
        for id in 0..3 {
            run(&engine, id).await;
        }
        engine.close().await;
        drop(engine);
        assert_eq!(texts(&folder.path().join("log").join(ending)), [wanted]);
    }
}

#[tokio::test]
async fn a_parquet_file_has_its_name_once_it_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine_of(&graph(Sink::new(&Outside::new(folder.path()), "a.parquet")));
    run(&engine, 1).await;
    run(&engine, 2).await;
    engine.close().await;
    assert!(
        files(folder.path()).iter().all(|file| file.extension().is_some_and(|ending| ending == "partial"))
    );
    drop(engine);
    let files = files(folder.path());
    assert_eq!(files.len(), 1);
    assert_eq!(json(&parquet(&files[0])), json(&rows! { id: [1_i64, 2], name: ["n,1", "n,2"] }));
}

#[tokio::test]
async fn a_full_file_is_closed_and_the_next_begun() {
    for ending in ["jsonl", "csv", "parquet"] {
        let folder = tempfile::tempdir().unwrap();
        let engine =
            engine_of(&graph(Sink::new(&Outside::new(folder.path()), format!("a.{ending}")).size(1)));
        for id in 0..3 {
            run(&engine, id).await;
        }
        engine.close().await;
        drop(engine);
        let files = files(folder.path());
        assert_eq!(files.len(), 3, "{files:?}");
        assert!(files.iter().all(|file| file.extension().is_some_and(|found| found == ending)), "{files:?}");
    }
}

#[tokio::test]
async fn an_old_file_is_closed_though_no_row_comes() {
    let folder = tempfile::tempdir().unwrap();
    let sink = Sink::new(&Outside::new(folder.path()), "a.parquet").age(Duration::from_millis(1));
    let engine = engine_of(&graph(sink));
    run(&engine, 1).await;
    let whole =
        || files(folder.path()).iter().any(|file| file.extension().is_some_and(|ending| ending == "parquet"));
    let closed = async {
        while !whole() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), closed).await.unwrap();
}

#[tokio::test]
async fn steps_of_one_path_share_one_writer() {
    let folder = tempfile::tempdir().unwrap();
    let outside = Outside::new(folder.path());
    let engines = [0, 1].map(|_| engine_of(&graph(Sink::new(&outside, "a.jsonl"))));
    for (id, engine) in (0..).zip(&engines) {
        run(engine, id).await;
        engine.close().await;
    }
    drop(engines);
    assert_eq!(texts(folder.path()).concat().lines().count(), 2);
    assert_eq!(files(folder.path()).len(), 1);
}

#[test]
fn a_file_that_cannot_be_is_refused_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("project")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(folder.path(), folder.path().join("project/up")).unwrap();
    let outside = Outside::new(folder.path().join("project"));
    let mut graph = graph(Sink::new(&outside, "../a.jsonl"));
    let reply = graph.input();
    let tensor = graph.map("lists", &reply, fields! { id: Int64 }, |rows| Ok(rows.project(&[0])?));
    graph.step("b", &tensor, Sink::new(&outside, "/tmp/a.jsonl"));
    graph.step("c", &tensor, Sink::new(&outside, "up/a.jsonl"));
    graph.step("d", &tensor, Sink::new(&outside, "a.txt").queue(0, millstream_serve::sink::WhenFull::Drop));
    graph.step("e", &tensor, Sink::new(&outside, "a.jsonl"));
    graph.step("f", &reply, Sink::new(&outside, "a.jsonl"));
    let problems = graph.compile().map(|plan| plan.to_string()).unwrap_err();
    expect![[r#"
        step `kept`: `../a.jsonl` leaves the project's folder
        step `b`: `/tmp/a.jsonl` leaves the project's folder
        step `c`: `up/a.jsonl` leaves the project's folder
        step `d`: `a.txt`: a file ends in .jsonl, .csv or .parquet
        step `d`: `queue` is at least 1
        step `f`: `a.jsonl` is written by another step with other columns or settings; name another file"#]]
    .assert_eq(&problems.to_string());
    assert_eq!(files(&folder.path().join("project")).len(), usize::from(cfg!(unix)), "nothing was written");
}

#[tokio::test]
async fn a_project_file_says_the_same_and_counts() {
    let folder = tempfile::tempdir().unwrap();
    let text = "
name: test
graphs:
  test:
    input: { id: int64, name: string }
    steps:
      same: { select: [id, name] }
      kept: { sink: { file: log/a.jsonl, size: 1MiB, age: 10m, queue: 1000, full: drop } }
    respond: same
";
    std::fs::write(folder.path().join("millstream.yaml"), text).unwrap();
    let project = Project::load(folder.path()).unwrap_or_else(|error| panic!("{error}"));
    let registry = prometheus::Registry::new();
    project.outside().count_into(&SinkRows::new(&registry).unwrap());
    let engine = project.engine("test", Limits::default()).unwrap();
    run(&engine, 7).await;
    engine.close().await;
    drop((engine, project));
    assert_eq!(texts(&folder.path().join("log")), ["{\"id\":7,\"name\":\"n,7\"}\n"]);
    let counted = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let wanted = "millstream_sink_rows_total{file=\"log/a.jsonl\",outcome=\"written\"} 1";
    assert!(counted.contains(wanted), "{counted}");
}
