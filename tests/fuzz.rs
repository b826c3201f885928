//! The fuzz targets over their corpus, and over changes of it that are the same each time.
//!
//! `MILLSTREAM_FUZZ=100 cargo test --release --test fuzz` makes a hundred times as many changes, from other seeds.

#![expect(clippy::unwrap_used, reason = "a test fails loudly")]

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is a library of its own, too")]
mod targets;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

/// What a target may allocate on the calling thread at a time, in bytes: a thousand times the longest input.
const MEMORY: u64 = 64 << 20;

/// Every entry of a target's corpus, by its file.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut entries: Vec<_> = files.map(|file| (file.clone(), fs::read(file).unwrap())).collect();
    entries.sort();
    assert!(!entries.is_empty(), "{} is empty", folder.display());
    entries
}

/// Runs a target on one input. An input that fails is left in a file, to become a part of the corpus.
fn run(target: &str, run: fn(&[u8]), input: &[u8], what: &str) {
    let mut ended = None;
    let used = allocation_counter::measure(|| ended = Some(catch_unwind(AssertUnwindSafe(|| run(input)))));
    let good = matches!(ended, Some(Ok(()))) && used.bytes_max <= MEMORY;
    if !good {
        let file = std::env::temp_dir().join(format!("millstream-fuzz-{target}"));
        fs::write(&file, input).unwrap();
        panic!("{target}: {what}, now in {}: used {} bytes", file.display(), used.bytes_max);
    }
}

/// Runs a target over its corpus, and over `changes` of each entry.
fn fuzz(target: &str, body: fn(&[u8]), changes: u64, words: &[&str]) {
    let more: u64 = std::env::var("MILLSTREAM_FUZZ").map_or(0, |times| times.parse().unwrap());
    let corpus = corpus(target);
    for (file, entry) in &corpus {
        run(target, body, entry, &file.display().to_string());
    }
    for (at, (file, entry)) in corpus.iter().enumerate() {
        for change in 0..changes * more.max(1) {
            let seed = (more << 48) ^ ((at as u64) << 32) ^ change;
            let mut random = fastrand::Rng::with_seed(seed);
            let mut input = entry.clone();
            for _ in 0..1 << random.u32(0..4) {
                mutate(&mut input, &mut random, words, &corpus);
            }
            run(target, body, &input, &format!("change {seed} of {}", file.display()));
        }
    }
}

/// Changes an input a little.
fn mutate(input: &mut Vec<u8>, random: &mut fastrand::Rng, words: &[&str], corpus: &[(PathBuf, Vec<u8>)]) {
    let at = random.usize(0..=input.len());
    let some = at..(at + random.usize(0..=16)).min(input.len());
    match random.u32(0..9) {
        0 if at < input.len() => input[at] ^= 1 << random.u32(0..8),
        1 if at < input.len() => {
            input[at] = *random.choice(&[0, 1, 0x7F, 0x80, 0xFF, b' ', b'0', b'"']).unwrap()
        }
        2 => input.insert(at, random.u8(..)),
        3 => drop(input.drain(some)),
        4 => {
            let copy = input[some].to_vec();
            let to = random.usize(0..=input.len());
            input.splice(to..to, copy);
        }
        5 | 6 if !words.is_empty() => {
            let word = random.choice(words).unwrap().bytes();
            let end = if random.bool() { some.end } else { at };
            input.splice(at..end, word);
        }
        7 => {
            let (_, other) = random.choice(corpus).unwrap();
            let from = random.usize(0..=other.len());
            let end = (from + random.usize(0..=64)).min(other.len());
            input.splice(some, other[from..end].iter().copied());
        }
        // A number in the middle becomes another one.
        8 if at + 4 <= input.len() => {
            let number = *random.choice(&[0_i32, 1, -1, i32::MAX, i32::MIN, 1 << 16, 64, 8]).unwrap();
            input[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        _ => input.truncate(at),
    }
}

#[test]
fn json_bodies() {
    let words = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "null",
        "true",
        "1e309",
        "-0",
        "1.0",
        "9223372036854775808",
        "1e-400",
        "\\ud800",
        "\\udc00",
        "\\u0000",
        "\"id\":1",
        "\"small\":1",
        "\"items\":[",
        "\"image\":[[1,2],[3,4]]",
        "{\"small\":1}",
        "\"2024-02-30T25:00:00+99:99\"",
        "\"AAA=\"",
        "\u{feff}",
        "[[[[[[[[",
    ];
    fuzz("json", targets::json, 2000, &words);
}

#[test]
fn arrow_streams() {
    fuzz("arrow", targets::arrow, 2000, &[]);
}

#[test]
fn expressions() {
    let words = [
        "(",
        ")",
        "+",
        "-",
        "*",
        "/",
        "%",
        "||",
        "=",
        "<>",
        " AND ",
        " OR ",
        " NOT ",
        " IS NULL",
        " CASE WHEN ",
        " THEN ",
        " ELSE ",
        " END",
        "CAST(",
        " AS ",
        " BIGINT",
        " DECIMAL(38, 10)",
        " INTERVAL '1' DAY",
        "0",
        "1",
        "-1",
        "9223372036854775807",
        "1e308",
        "NULL",
        "''",
        "'%_'",
        "amount",
        "qty",
        "small",
        "name",
        "at",
        "day",
        "items",
        "place",
        "['lat']",
        "[1]",
        "repeat(",
        "substr(",
        "date_trunc('month', ",
        "regexp_replace(",
        "array_sort(",
        "power(",
        "make_array(",
        "arrow_cast(",
        ", ",
        " LIKE ",
        " IN (1, 2)",
        " BETWEEN 1 AND 2",
        "to_timestamp(",
        "clamp(",
        "round(",
        "lpad(",
    ];
    fuzz("expression", targets::expression, 150, &words);
}

#[test]
fn project_files() {
    let words = [
        "\n",
        "  ",
        "- ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        "'",
        "\"",
        "&a ",
        "*a",
        "!!str ",
        "<<: ",
        "| ",
        "? ",
        "~",
        "null",
        "steps:",
        "from: input",
        "from: a",
        "merge:",
        "join:",
        "select: [id]",
        "when:",
        "respond: a",
        "on_error: skip",
        "graph: { use: other }",
        "remote:",
        "sink:",
        "post:",
        "list<",
        "tensor<float32, 2147483647, 2147483647>",
        "struct<",
        "?",
        "1e999",
        "0x7f",
    ];
    fuzz("project", targets::project, 200, &words);
}
